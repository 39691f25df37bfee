"""What runs one variant, whatever engine runs it: build, step, save, restore."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flambe.compile import random_state, saving, state, tags, yaml
from flambe.compile.build import Builder, run_error
from flambe.compile.component import Component
from flambe.compile.forgotten import Watch
from flambe.compile.pickled import Trust
from flambe.compile.state_file import read_state, write_state
from flambe.compile.stepping import Stepper
from flambe.compile.values import Schema, links, walk
from flambe.compile.workspace import Workspace, using
from flambe.errors import FlambeError, StateError
from flambe.experiment.checkpoints import CHECKPOINT, FINAL, MANIFEST, RANDOM, read_manifest
from flambe.experiment.folders import Folders
from flambe.experiment.storage import Storage
from flambe.experiment.variants import Expander, Variant
from flambe.logging import events
from flambe.logging.events import Record
from flambe.progress import better, with_names

_log = logging.getLogger("flambe.run")


@dataclass
class StageTask:
    """All that it takes to run the variants of one stage, on any host.

    Attributes
    ----------
    stage
        The stage.
    storage
        Where the folder of the run is.
    variants
        Stage → id → variant: of this stage, and of those that it builds upon.
    order
        The stages, in order.
    expander
        Makes the variants that a search suggests.
    resources
        Name → where it is on the host.
    extensions
        Name → where it came from.
    restore
        Id → the checkpoint that a variant goes on from.
    secrets
        The file of secrets, from flambe's own folder: its variables are set where variants run.
    key
        What was pickled with it is trusted: see :mod:`flambe.compile.pickled`.
    """

    stage: str
    storage: Storage
    variants: dict[str, dict[str, Variant]]
    order: list[str]
    expander: Expander
    resources: dict[str, Any] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    restore: dict[str, str] = field(default_factory=dict)
    secrets: str = ""
    key: bytes = field(default=b"", repr=False)

    def of(self, variant_id: str, values: Mapping[str, Any], repetition: int = 0) -> Variant:
        """Return a variant of this stage, with the values that a search suggested for it."""
        known = self.variants[self.stage]
        if not values:
            return known[variant_id]
        variant = self.expander.suggest(known[variant_id], values, repetition)
        return known.setdefault(variant.id, variant)


def seed_everything(seed: int, stage: str, repetition: int = 0) -> None:
    """Seed Python, NumPy and torch from the seed of the run and a stage.

    A stage is built from the same numbers wherever it is built, whatever was built before it; a
    repetition of a variant from others.
    """
    text = f"{seed}:{stage}:{repetition}" if repetition else f"{seed}:{stage}"
    digest = hashlib.sha256(text.encode()).digest()
    random_state.seed(int.from_bytes(digest[:4], "big"))


class Assembly:
    """The objects of a variant and of its ancestors, in one process.

    An ancestor that was run is given the state that it ended with. It shares its own ancestors with
    the others, but for those whose state it changed: of these it has a copy.

    Parameters
    ----------
    task
        What it takes.
    variant
        The variant.
    shared
        Ancestors that are built already, and that others use.
    workspace_of
        Stage → the folder of its components.
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
        self.names: dict[str, Any] = {
            **{name: _here(place) for name, place in task.resources.items()},
            **{stage: member.config for stage, member in self.variants.items()},
        }
        #: What is to be said of what ancestors did not save: what it is about → text.
        self.advice: dict[str, str] = {}
        self.shared: dict[str, Builder] = dict(shared or {})
        self.borrowed = set(self.shared)

    def component(self) -> Any:
        """Build the object of the variant, its ancestors restored."""
        return self._build(self.target).stage(self.target)

    def _build(self, stage: str) -> Builder:
        def elsewhere(name: str) -> Builder | None:
            if name == stage or name not in self.variants:
                return None
            return self._shared(name)

        # Ancestors first: building them draws random numbers of their own.
        for _, link in links(self.names[stage]):
            elsewhere(link.root)
        # And modules: some draw when they are imported, which is only once in a process.
        for _, part in walk(self.names[stage]):
            if isinstance(part, Schema):
                with contextlib.suppress(Exception):  # building it says what is wrong
                    part.resolve()
        builder = Builder(self.names, elsewhere)
        seed_everything(self.task.seed, stage, self.variants[stage].repetition)
        where = contextlib.nullcontext() if self.workspace_of is None else self._in_folder(stage)
        with where:
            builder.stage(stage)
        return builder

    def _in_folder(self, stage: str) -> contextlib.AbstractContextManager[None]:
        assert self.workspace_of is not None
        return using(self.workspace_of(stage))

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
            folder = self.task.storage.bring(checkpoint) / CHECKPOINT
        if folder is None or not folder.is_dir():
            raise StateError(
                f"the checkpoint of stage {stage!r} is missing: {checkpoint}\n"
                "  run that stage again: run with --force, or resume from a stage before it"
            )
        saved = saving.read(
            str(folder),
            component,
            lambda path, about, text: self.advice.setdefault(about, text),
            Trust(key=self.task.key),
        )
        if copied := self._copied(stage, component, saved):
            kept = {name: built for name, built in self.shared.items() if name not in copied}
            builder = Assembly(self.task, variant, kept, self.workspace_of)._build(stage)
            component = builder.stage(stage)
        with _blamed(component, "loading the state of"):
            component.load_state(saved)
        manifest = read_manifest(folder.parent)
        if manifest is not None and not manifest["done"]:
            with _blamed(component, "stopped() of"):
                component.stopped()
        return builder

    def _copied(self, stage: str, component: Component, saved: state.State) -> set[str]:
        """Return the ancestors that hold what a stage changed, if others reach them too."""
        changed = {
            id(member)
            for path, member in state.components(component)
            if path in saved and not state.same(member._state(state.own(member)), saved[path])
        }
        holders = set()
        for name in self.variants[stage].ancestry:
            built = self._shared(name).built.values()
            roots = [value for value in built if isinstance(value, Component)]
            if any(id(m) in changed for root in roots for _, m in state.components(root)):
                holders.add(name)
        return holders if holders & self._reached_without(stage) else set()

    def _reached_without(self, stage: str) -> set[str]:
        """Return the ancestors that others use, or that the target reaches not through a stage."""
        seen: set[str] = set()
        ahead = [self.target]
        while ahead:
            for parent in self.variants[ahead.pop()].parents:
                if parent != stage and parent not in seen:
                    seen.add(parent)
                    ahead.append(parent)
        return seen | self.borrowed


class VariantTask:
    """Runs one variant, step by step.

    Parameters
    ----------
    task, variant_id
        What is run.
    channel
        Takes what it says.
    attempt
        Which attempt of this run at the variant it is: what an earlier one writes does not count.
    """

    def __init__(
        self, task: StageTask, variant_id: str, channel: events.Channel, attempt: int = 1
    ) -> None:
        tags.declare(task.extensions)
        self.task = task
        self.variant = task.variants[task.stage][variant_id]
        self.channel = channel
        self.attempt = attempt
        self.step_count = 0
        self.done = False
        self.metric: float | None = None
        self.best: float | None = None
        events.use(channel, variant_id)
        with contextlib.suppress(StateError):  # made in Python, with values that have no YAML form
            text = yaml.dump(self.variant.config)
            channel.send(Record(variant_id, "config", "", text, None, time.time()))
        self.folders = Folders()
        with contextlib.ExitStack() as unfinished:
            unfinished.callback(self.close)
            assembly = Assembly(task, self.variant, workspace_of=self._workspace)
            self.component = assembly.component()
            self.stepper = Stepper(self.component)
            for about, advice in assembly.advice.items():
                self._advise(about, advice)
            self._watch()
            if variant_id in task.restore:
                folder = task.storage.bring(task.restore[variant_id])
                self.restore(folder)
                # The attempts of this run come after those of the run before.
                self.attempt += (read_manifest(folder) or {}).get("attempt", 0)
            unfinished.pop_all()

    def _workspace(self, stage: str) -> Workspace:
        """Return the folder of the components of a stage; of one that has run, a copy."""
        identity = self.variant.ancestry.get(stage, "")
        ancestor = self.task.variants.get(stage, {}).get(identity)
        if ancestor is None or not ancestor.runs:
            return self.folders.own
        checkpoint = f"{self.task.storage.base}/{stage}/{ancestor.name}/{FINAL}"
        return self.folders.of_ancestor(stage, lambda: self.task.storage.bring(checkpoint))

    def close(self) -> None:
        """Remove what the variant has on this host; its checkpoints hold what is to stay."""
        self.folders.close()

    def _advise(self, about: str, text: str) -> None:
        """Say something that is said once in a run."""
        self.channel.send(Record(self.variant.id, "advice", about, text, None, time.time()))

    def _watch(self) -> None:
        """Remember what the components hold, and which of it is known to be in no state."""
        self.forgotten: dict[str, dict[str, str]] = {}
        self.watch = Watch(self.component) if isinstance(self.component, Component) else None

    def step(self) -> bool:
        """Run one step; return whether there is more to do.

        Raises
        ------
        ComponentError
            If the component raises.
        """
        events.at_step(self.step_count + 1)
        more, earlier = False, self.metric
        if isinstance(self.component, Component):
            with using(self.folders.own):
                more = self.stepper.step()
                self.metric = self.stepper.metric()
        if self.stepper.counts:
            self.step_count += 1
        self.done = not more
        if self.metric is not None:
            self.best = better(self.best, self.metric)
            if self.stepper.counts or self.metric != earlier:
                events.log("metric", self.metric, self.step_count)
        return more

    def save(self, folder: Path) -> None:
        """Write a checkpoint; its manifest comes last, so that a whole one is known."""
        if isinstance(self.component, Component):
            with _blamed(self.component, "saving the state of"):
                values = state.collect(self.component)
            self._look_for_forgotten(values)
            place = str(folder / CHECKPOINT)
            saving.write(self.component, place, values, self.forgotten, self.task.key)
            # A component may draw from the numbers that all share: the next step goes on there.
            (folder / RANDOM).mkdir()
            write_state(str(folder / RANDOM), random_state.capture())
        self.folders.save(folder)
        files = {
            str(file.relative_to(folder)): file.stat().st_size
            for file in folder.rglob("*")
            if file.is_file()
        }
        manifest = {
            "variant": self.variant.id,
            "attempt": self.attempt,
            "step": self.step_count,
            "metric": self.metric,
            "best": self.best,
            "done": self.done,
            "generator": self.stepper.is_generator,
            "files": files,
        }
        text = json.dumps(with_names(manifest), allow_nan=False)
        (folder / MANIFEST).write_text(text, encoding="utf-8")

    def _look_for_forgotten(self, values: state.State) -> None:
        """Name what changed and is in no state: at the first step, the last, and now and then."""
        count = self.step_count
        if self.watch is None or (count & (count - 1) and not self.done):
            return
        for lost in self.watch.forgotten(values):
            self.forgotten.setdefault(lost.path, {})[lost.name] = lost.text
            self._advise(lost.key, lost.text)

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        manifest = read_manifest(folder)
        if manifest is None:
            raise StateError(f"the checkpoint {folder} is not whole")
        if manifest.get("generator"):
            # Where a generator stood is in no checkpoint: from this state it would do steps twice.
            _log.warning(
                "run() of %s is a generator, which goes on from no checkpoint: it begins again, at "
                "step 1 (a run() that does one step and returns True goes on)",
                type(self.component).__name__,
            )
            return
        if isinstance(self.component, Component):
            notes: dict[str, dict[str, str]] = {}

            def note(path: str, about: str, text: str) -> None:
                notes.setdefault(path, {})[about.rpartition(".")[2]] = text
                self._advise(about, text)

            place, trust = str(folder / CHECKPOINT), Trust(key=self.task.key)
            saved = saving.read(place, self.component, note, trust)
            with _blamed(self.component, "loading the state of"):
                self.component.load_state(saved)
            self._watch()
            self.forgotten = notes
            if (folder / RANDOM).is_dir():  # earlier versions wrote none
                random_state.restore(read_state(str(folder / RANDOM)))
        self.folders.restore(folder)
        self.step_count = manifest["step"]
        self.metric, self.best = manifest["metric"], manifest["best"]


@contextlib.contextmanager
def _blamed(component: Component, doing: str) -> Iterator[None]:
    """Say of which component an error is that one of its hooks raised."""
    try:
        yield
    except FlambeError:
        raise
    except Exception as error:
        raise run_error(component, error, doing) from error


def _here(place: Any) -> Any:
    """Return the path of a resource on this host: on a cluster it is below the user's home."""
    return os.path.expanduser(place) if isinstance(place, str) else place
