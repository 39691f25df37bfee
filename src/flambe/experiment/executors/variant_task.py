"""One variant as every executor runs it: build, step, save, restore."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

from flambe.compile import persistence, registry, yaml
from flambe.compile.component import Component
from flambe.compile.state import component_state, random_state
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.forgotten import Watch
from flambe.compile.state.pickled import Trust
from flambe.compile.state.state_file import read_state, write_state
from flambe.compile.stepping import Stepper
from flambe.compile.workspace import Workspace, using
from flambe.errors import StateError
from flambe.experiment.executors.assembly import Assembly, component_context
from flambe.experiment.executors.stage_task import Explored, StageTask
from flambe.experiment.storage.checkpoints import FINAL, read_manifest
from flambe.experiment.storage.manifest import CHECKPOINT, MANIFEST, RANDOM, Manifest
from flambe.experiment.storage.variant_folders import VariantFolders
from flambe.experiment.storage.verification import verify
from flambe.logging import events
from flambe.logging.events import Record
from flambe.progress import better

_log = logging.getLogger("flambe.run")


class VariantTask:
    """Runs one variant, step by step.

    Parameters
    ----------
    task, variant_id
        The task of the stage, and the variant.
    channel
        Takes what the variant prints and logs.
    attempt
        The number of the attempt in this run: what an earlier attempt writes is ignored.
    explored
        Of a member of a population, what it has become.
    """

    def __init__(
        self,
        task: StageTask,
        variant_id: str,
        channel: events.Channel,
        attempt: int = 1,
        explored: Explored | None = None,
    ) -> None:
        registry.extensions().declare(task.extensions)
        self.task = task
        self.variant = task.variants[task.stage][variant_id]
        self.explored = explored
        if explored is not None:
            self.variant = task.expander.explored(self.variant, explored.values)
        self.channel = channel
        self.attempt = attempt
        self.step_count = 0
        self.seconds = 0.0
        self.done = False
        self.metric: float | None = None
        self.best: float | None = None
        events.use(channel, variant_id)
        with contextlib.suppress(StateError):  # made in Python, with values that have no YAML form
            text = yaml.dump(self.variant.config, resolve=True)
            channel.send(Record(variant_id, "config", "", text, None, time.time()))
        self.folders = VariantFolders()
        with contextlib.ExitStack() as unfinished:
            unfinished.callback(self.close)
            assembly = Assembly(task, self.variant, workspace_of=self._workspace)
            self.component = assembly.component()
            self._assembly = assembly
            self.stepper = Stepper(self.component)
            for subject, advice in assembly.advice.items():
                self._advise(subject, advice)
            self._watch()
            if variant_id in task.restore:
                folder = task.storage.fetch(task.restore[variant_id])
                self.restore(folder)
                # The attempts of this run come after those of the run before.
                manifest = read_manifest(folder)
                self.attempt += manifest.attempt if manifest is not None else 0
            unfinished.pop_all()

    def _workspace(self, stage: str) -> Workspace:
        """Return the folder of the components of a stage; of one that has run, a copy."""
        identity = self.variant.ancestry.get(stage, "")
        ancestor = self.task.variants.get(stage, {}).get(identity)
        if ancestor is None or not ancestor.runs:
            return self.folders.own
        checkpoint = f"{self.task.storage.base}/{stage}/{ancestor.name}/{FINAL}"
        return self.folders.of_ancestor(stage, lambda: self.task.storage.fetch(checkpoint))

    def close(self) -> None:
        """Remove the variant's folders on this host; its checkpoints hold what is kept."""
        self.folders.close()

    def _advise(self, subject: str, text: str) -> None:
        """Warn, once in a run for each subject."""
        self.channel.send(Record(self.variant.id, "advice", subject, text, None, time.time()))

    def _watch(self) -> None:
        """Remember what the components hold, to find what changes and is in no state."""
        self.forgotten: dict[str, dict[str, str]] = {}
        self.watch = Watch(self.component) if isinstance(self.component, Component) else None

    def step(self) -> bool:
        """Run one step; return whether more steps follow.

        Raises
        ------
        ComponentError
            If the component raises.
        """
        events.at_step(self.step_count + 1)
        more, earlier = False, self.metric
        began = time.monotonic()
        if isinstance(self.component, Component):
            with using(self.folders.own):
                more = self.stepper.step()
                self.metric = self.stepper.metric()
        self.seconds += time.monotonic() - began
        if self.stepper.counts:
            self.step_count += 1
        self.done = not more
        if self.metric is not None:
            self.best = better(self.best, self.metric)
            if self.stepper.counts or self.metric != earlier:
                events.log("metric", self.metric, self.step_count)
        return more

    def save(self, folder: Path) -> None:
        """Write a checkpoint; its manifest comes last, and marks it complete."""
        writer = FileWriter(folder)
        if isinstance(self.component, Component):
            with component_context(self.component, "saving the state of"):
                values = component_state.collect(self.component)
            self._look_for_forgotten(values)
            persistence.write(
                self.component, writer.below(CHECKPOINT), values, self.forgotten, self.task.key
            )
            # A component may draw from the global generators: the next step continues from there.
            write_state(writer.below(RANDOM), random_state.capture())
        self.folders.save(writer)
        manifest = Manifest(
            self.step_count,
            self.variant.id,
            self.attempt,
            self.metric,
            self.best,
            self.done,
            self.stepper.is_generator,
            writer.entries,
            round(self.seconds, 3),
            dict(self.explored.values) if self.explored is not None else {},
            self.explored.copies if self.explored is not None else 0,
        )
        (folder / MANIFEST).write_text(manifest.dump(), encoding="utf-8")

    def _look_for_forgotten(self, values: component_state.State) -> None:
        """Warn of what changed and is in no state: after 1, 2, 4, 8 … steps, and the last."""
        count = self.step_count
        if self.watch is None or (count & (count - 1) and not self.done):
            return
        for lost in self.watch.forgotten(values):
            self.forgotten.setdefault(lost.path, {})[lost.name] = lost.text
            self._advise(lost.key, lost.text)

    def restore(self, folder: Path) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        StateError
            If it is incomplete.
        """
        manifest = read_manifest(folder)
        if manifest is None:
            raise StateError(f"the checkpoint {folder} is incomplete")
        verify(folder)
        if manifest.generator:
            # A checkpoint has no position of a generator: from this state it would repeat steps.
            _log.warning(
                "run() of %s is a generator, which cannot continue from a checkpoint: it starts "
                "again at step 1 (a run() that does one step and returns True can continue)",
                type(self.component).__name__,
            )
            return
        if isinstance(self.component, Component):
            forgotten: dict[str, dict[str, str]] = {}

            def on_forgotten(path: str, subject: str, text: str) -> None:
                forgotten.setdefault(path, {})[subject.rpartition(".")[2]] = text
                self._advise(subject, text)

            path, trust = str(folder / CHECKPOINT), Trust(key=self.task.key)
            saved = persistence.read(path, self.component, on_forgotten, trust)
            with component_context(self.component, "loading the state of"):
                self.component.load_state(saved)
                if self.explored is not None:
                    self._assembly.set_explored(manifest.values, self.explored.values)
            self._watch()
            self.forgotten = forgotten
            if (folder / RANDOM).is_dir():  # not written by earlier versions
                random_state.restore(read_state(str(folder / RANDOM)))
        self.folders.restore(folder)
        self.step_count, self.seconds = manifest.step, manifest.seconds
        self.metric, self.best = manifest.metric, manifest.best
