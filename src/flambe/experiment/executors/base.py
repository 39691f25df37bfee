"""Who runs the variants of a stage: a small interface, and the simplest that fulfils it."""

from __future__ import annotations

import itertools
import logging
import pdb
import shutil
import socket
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from flambe._disk import patiently
from flambe.errors import ComponentError, FlambeError, listed
from flambe.experiment.executors.failures import reported, whole_text
from flambe.experiment.executors.isolation import Isolation, load_libraries
from flambe.experiment.executors.last_words import printed_last
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.variant_task import VariantTask
from flambe.experiment.storage.checkpoints import FINAL, Checkpoints
from flambe.experiment.variants.expansion import Variant, choices_text
from flambe.logging import capture
from flambe.logging.events import Record, use
from flambe.logging.recorder import DirectChannel, Recorder
from flambe.progress import RunFolder

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Is told what happens to variants, from the thread that runs the stage."""

    def started(self, variant: Variant, host: str) -> None:
        """A variant starts, or starts again."""

    def stepped(self, variant: Variant, step: int, metric: float | None, host: str) -> None:
        """A step is done."""

    def finished(self, variant: Variant, *, stopped: bool) -> None:
        """It is at its end, or a scheduler stopped it."""

    def failed(
        self, variant: Variant, error: ComponentError | None, text: str, final: bool
    ) -> None:
        """It raised; unless final it is tried again."""

    def lines(self, lines: Sequence[tuple[str, str, str]]) -> None:
        """Lines that components printed and logged: source, level and text. From any thread."""


@dataclass(frozen=True)
class Tried:
    """What a search tried in an earlier run: its base variant, the values, and the figure.

    The figure is None if the point failed: it had none, or one that was no number.
    """

    base: str
    values: Mapping[str, Any]
    metric: float | None


@dataclass
class StageOptions:
    """How a stage is run.

    Attributes
    ----------
    devices
        What each variant occupies: ``{"cpu": 1, "gpu": 0.5}``.
    max_failures
        How often a variant is tried again; -1 for no limit.
    reuse_actors
        Whether one process may run several variants, one after another.
    search, scheduler
        A searcher and a trial scheduler of Ray Tune.
    num_samples, max_concurrent
        Of a search: how many variants are tried, and how many at a time.
    space
        The dimensions of a search: path as text → search space.
    earlier
        What a resumed search tried before.
    taken
        The ids of the variants that it suggested before: the same values once more are a
        repetition.
    """

    devices: dict[str, float] = field(default_factory=lambda: {"cpu": 1.0})
    max_failures: int = 1
    reuse_actors: bool = True
    search: Any = None
    scheduler: Any = None
    num_samples: int = 1
    max_concurrent: int | None = None
    space: dict[str, Any] = field(default_factory=dict)
    earlier: Sequence[Tried] = ()
    taken: Collection[str] = ()

    def without_search(self) -> StageOptions:
        """Return the same for variants that are known."""
        return replace(self, search=None, scheduler=None, earlier=())


class Executor(Protocol):
    """Runs stages, one call each."""

    def start(self) -> None:
        """Make ready; called once, before the first stage."""

    def capacity(self) -> dict[str, float]:
        """Return what the largest host offers, ``{"cpu": 4, …}``; empty if nothing is too large."""

    def run_stage(
        self, task: StageTask, variants: Sequence[Variant], options: StageOptions, to: Listener
    ) -> None:
        """Run variants of a stage to their ends, telling the listener."""

    def close(self) -> None:
        """Give everything back."""


class InlineExecutor:
    """Runs one variant after another in this process, without Ray.

    Parameters
    ----------
    root
        The folder of the run.
    debugger
        Runs each step of a component, for ``--debug``. What components print goes to the terminal
        then.
    """

    def __init__(self, root: Path, debugger: pdb.Pdb | None = None) -> None:
        self.root = root
        self.debugger = debugger
        self.recorder = Recorder(root)

    def start(self) -> None:
        """Nothing to make ready."""

    def capacity(self) -> dict[str, float]:
        """Everything runs here, one at a time: nothing is too large."""
        return {}

    def run_stage(
        self, task: StageTask, variants: Sequence[Variant], options: StageOptions, to: Listener
    ) -> None:
        """Run the variants; see :class:`Executor`."""
        for variant in variants:
            self.recorder.open(
                variant.id, f"{variant.stage}/{variant.name}", variant_title(variant)
            )
            for attempt in itertools.count():
                final = attempt == options.max_failures  # never, if it is -1
                if self._run(task, variant, to, final=final) or final:
                    break

    def _run(self, task: StageTask, variant: Variant, to: Listener, *, final: bool) -> bool:
        channel = DirectChannel(self.recorder)

        def take(level: str, text: str) -> None:
            kind = "progress" if level == capture.PROGRESS else "line"
            channel.send(Record(variant.id, kind, level, text, None, time.time()))
            to.lines(self.recorder.take_lines())

        host = socket.gethostname()
        to.started(variant, host)
        folder = RunFolder(self.root).variant(variant.stage, variant.name)
        folder.mkdir(parents=True, exist_ok=True)
        load_libraries(task.extensions)
        isolation = Isolation(task.extensions)
        running: VariantTask | None = None
        try:
            with capture.printed_here(take) if self.debugger is None else capture.logged(take):
                running = VariantTask(task, variant.id, channel)
                if self.debugger is not None:
                    running.stepper.call = self.debugger.runcall
                more = True
                while more:
                    more = running.step()
                    save = partial(self._save, running, folder)
                    patiently(save, folder, _log.warning)
                    to.stepped(variant, running.step_count, running.metric, host)
        except FlambeError as error:
            if whole := whole_text(error):
                channel.send(Record(variant.id, "whole", "ERROR", whole, None, time.time()))
            failure = reported(error)
            if failure.exits:
                lines = [text for _, text in self.recorder.tail(variant.id)]
                failure = failure.followed_by(printed_last(lines))
            take("ERROR", failure.text)
            to.failed(variant, failure.error, failure.text, final or failure.lasting)
            return failure.lasting
        finally:
            if running is not None:
                running.close()
            if left := isolation.restore():
                text = f"it left {listed(left, 3)}, beside which the variants after it run"
                channel.send(Record(variant.id, "advice", "process", text, None, time.time()))
            use(None)
            to.lines(self.recorder.take_lines())
            channel.send(Record(variant.id, "end", "", None, None, time.time()))
        Checkpoints(str(self.root)).settle(str(folder), FINAL)
        to.finished(variant, stopped=False)
        return True

    def _save(self, running: VariantTask, folder: Path) -> None:
        beside = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        try:
            running.save(beside)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        name = f"checkpoint_{running.step_count:06d}"
        if (folder / name).exists():  # a generator was at its end after its last step
            name += "_end"
        beside.rename(folder / name)
        Checkpoints(str(self.root)).settle(str(folder), name)
        running.task.restore[running.variant.id] = str(folder / name)

    def close(self) -> None:
        """Close the files."""
        self.recorder.close()


def variant_title(variant: Variant) -> str:
    """Return what people call a variant: ``train lr=0.1,n=2``."""
    return f"{variant.stage} {choices_text(variant.choices)}".strip()
