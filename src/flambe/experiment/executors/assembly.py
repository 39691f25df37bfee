"""The objects of a variant and of its ancestors, built in one process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from flambe.compile import persistence
from flambe.compile.build import Builder, run_error
from flambe.compile.component import Component
from flambe.compile.schema import Schema
from flambe.compile.state import component_state
from flambe.compile.state.pickled import Trust
from flambe.compile.values import links, walk
from flambe.compile.workspace import Workspace, using
from flambe.errors import FlambeError, StateError
from flambe.experiment.executors.stage_task import StageTask, seed_everything
from flambe.experiment.search.explored_values import explore
from flambe.experiment.storage.checkpoints import FINAL, read_manifest
from flambe.experiment.storage.manifest import CHECKPOINT
from flambe.experiment.variants.expansion import Variant


class Assembly:
    """Builds the objects of a variant and of its ancestors, in one process.

    An ancestor that was run gets the state that it ended with. It shares its own ancestors with
    the others, except those whose state it changed: of these it has a copy.

    Parameters
    ----------
    task
        The task of the stage.
    variant
        The variant.
    shared
        Ancestors that are built already, and that others use.
    workspace_of
        Returns the folder of the components of a stage.
    """

    def __init__(
        self,
        task: StageTask,
        variant: Variant,
        shared: Mapping[str, Builder] | None = None,
        workspace_of: Callable[[str], Workspace] | None = None,
    ) -> None:
        self.task = task
        self.workspace_of = workspace_of
        self.target = variant.stage
        ids = {**variant.ancestry, variant.stage: variant.id}
        self.variants = {
            stage: task.variants[stage][ids[stage]] for stage in task.order if stage in ids
        }
        self.variants[variant.stage] = variant  # of a population, with the values of now
        self.names: dict[str, object] = {
            **{name: _expand_home(location) for name, location in task.resources.items()},
            **{stage: variant.config for stage, variant in self.variants.items()},
        }
        #: Warnings about what ancestors did not save: subject → text.
        self.advice: dict[str, str] = {}
        self.shared: dict[str, Builder] = dict(shared or {})
        self.borrowed = set(self.shared)

    def component(self) -> object:
        """Build the object of the variant, its ancestors restored."""
        self._own = self._build(self.target)
        return self._own.stage(self.target)

    def set_explored(self, before: Mapping[str, object], values: Mapping[str, object]) -> None:
        """Give the built objects the values that a population explores: see :func:`explore`."""
        explore(self._own.built, self.names[self.target], self.target, before, values)

    def _build(self, stage: str) -> Builder:
        def shared_stage(name: str) -> Builder | None:
            if name == stage or name not in self.variants:
                return None
            return self._shared(name)

        # Ancestors first: building them draws random numbers of their own.
        for _, link in links(self.names[stage]):
            shared_stage(link.root)
        # And modules: some draw when they are imported, which happens once per process.
        for _, part in walk(self.names[stage]):
            if isinstance(part, Schema):
                with contextlib.suppress(Exception):  # building it raises the same, with its place
                    part.resolve()
        builder = Builder(self.names, shared_stage)
        variant = self.variants[stage]
        seed_everything(variant.seed, self.task.expander.origin(stage), variant.repetition)
        with contextlib.ExitStack() as stack:
            if self.workspace_of is not None:
                stack.enter_context(using(self.workspace_of(stage)))
            builder.stage(stage)
        return builder

    def _shared(self, stage: str) -> Builder:
        if stage not in self.shared:
            self.shared[stage] = self._restored(stage)
        return self.shared[stage]

    def _restored(self, stage: str) -> Builder:
        variant = self.variants[stage]
        builder = self._build(stage)
        checkpoint = f"{self.task.storage.base}/{stage}/{variant.name}/{FINAL}"
        component = builder.stage(stage)
        if not variant.runs or not isinstance(component, Component):
            return builder
        folder = None
        with contextlib.suppress(FileNotFoundError):
            folder = self.task.storage.fetch(checkpoint) / CHECKPOINT
        if folder is None or not folder.is_dir():
            raise StateError(
                f"the checkpoint of stage {stage!r} is missing: {checkpoint}\n"
                "  run that stage again: run with --force, or resume from a stage before it"
            )
        saved = persistence.read(
            str(folder),
            component,
            lambda path, about, text: self.advice.setdefault(about, text),
            Trust(key=self.task.key),
        )
        if copied := self._copied(stage, component, saved):
            kept = {name: built for name, built in self.shared.items() if name not in copied}
            builder = Assembly(self.task, variant, kept, self.workspace_of)._build(stage)
            component = builder.stage(stage)
        with component_context(component, "loading the state of"):
            component.load_state(saved)
        manifest = read_manifest(folder.parent)
        if manifest is not None and not manifest.done:
            with component_context(component, "stopped() of"):
                component.stopped()
        return builder

    def _copied(self, stage: str, component: Component, saved: component_state.State) -> set[str]:
        """Return the ancestors that hold what a stage changed, if others reach them too."""
        changed = {
            id(part)
            for path, part in component_state.components(component)
            if path in saved
            and not component_state.same(part._state(component_state.own(part)), saved[path])
        }
        holders = set()
        for name in self.variants[stage].ancestry:
            built = self._shared(name).built.values()
            roots = [value for value in built if isinstance(value, Component)]
            if any(id(p) in changed for root in roots for _, p in component_state.components(root)):
                holders.add(name)
        return holders if holders & self._reached_without(stage) else set()

    def _reached_without(self, stage: str) -> set[str]:
        """Return the ancestors that others use, or that the target reaches without a stage."""
        seen: set[str] = set()
        ahead = [self.target]
        while ahead:
            for parent in self.variants[ahead.pop()].parents:
                if parent != stage and parent not in seen:
                    seen.add(parent)
                    ahead.append(parent)
        return seen | self.borrowed


@contextlib.contextmanager
def component_context(component: Component, action: str) -> Iterator[None]:
    """Turn what a hook of a component raises into an error that names the component.

    Raises
    ------
    ComponentError
        If the hook raised anything but a FlambeError.
    """
    try:
        yield
    except FlambeError:
        raise
    except Exception as error:
        raise run_error(component, error, action) from error


def _expand_home(location: object) -> object:
    """Return the path of a resource on this host: on a cluster it is below the user's home."""
    return os.path.expanduser(location) if isinstance(location, str) else location
