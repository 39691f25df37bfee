"""What runs one variant, whatever engine runs it: build, step, save, restore."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path

from flambe.compile import persistence, registry, yaml
from flambe.compile.component import Component
from flambe.compile.state import component_state, random_state
from flambe.compile.state.forgotten import Watch
from flambe.compile.state.pickled import Trust
from flambe.compile.state.state_file import read_state, write_state
from flambe.compile.stepping import Stepper
from flambe.compile.workspace import Workspace, using
from flambe.errors import StateError
from flambe.experiment.executors.assembly import Assembly, blamed
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.storage.checkpoints import CHECKPOINT, FINAL, MANIFEST, RANDOM, read_manifest
from flambe.experiment.storage.variant_folders import Folders
from flambe.logging import events
from flambe.logging.events import Record
from flambe.progress import better, with_names

_log = logging.getLogger("flambe.run")


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
        registry.extensions().declare(task.extensions)
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
            with blamed(self.component, "saving the state of"):
                values = component_state.collect(self.component)
            self._look_for_forgotten(values)
            place = str(folder / CHECKPOINT)
            persistence.write(self.component, place, values, self.forgotten, self.task.key)
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

    def _look_for_forgotten(self, values: component_state.State) -> None:
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
            saved = persistence.read(place, self.component, note, trust)
            with blamed(self.component, "loading the state of"):
                self.component.load_state(saved)
            self._watch()
            self.forgotten = notes
            if (folder / RANDOM).is_dir():  # earlier versions wrote none
                random_state.restore(read_state(str(folder / RANDOM)))
        self.folders.restore(folder)
        self.step_count = manifest["step"]
        self.metric, self.best = manifest["metric"], manifest["best"]
