"""Runs variants one after another in this process, without Ray: for tests and ``--debug``."""

from __future__ import annotations

import itertools
import logging
import pdb
import shutil
import socket
import tempfile
import time
from functools import partial
from pathlib import Path

from flambe._disk import retry_when_full
from flambe.errors import FlambeError, listed
from flambe.experiment.executors.admission import StageQueue
from flambe.experiment.executors.base import StageOptions, VariantListener
from flambe.experiment.executors.crash_record import quote_last_lines
from flambe.experiment.executors.failures import Failure, full_message, reported_failure
from flambe.experiment.executors.isolation import Isolation, load_libraries
from flambe.experiment.executors.stage_task import StageTask, variant_title
from flambe.experiment.executors.variant_task import VariantTask
from flambe.experiment.search.stage_limits import StageLimits
from flambe.experiment.storage.checkpoints import FINAL, Checkpoints
from flambe.experiment.storage.upkeep import stored_bytes
from flambe.experiment.variants.expansion import Variant
from flambe.logging import capture
from flambe.logging.events import Record, use
from flambe.logging.recorder import DirectChannel, Recorder
from flambe.progress import RunFolder

_log = logging.getLogger(__name__)


class InlineExecutor:
    """Runs one variant after another in this process.

    Parameters
    ----------
    root
        The folder of the run.
    debugger
        Runs each step of a component, for ``--debug``. What components print goes to the terminal
        then.
    """

    parallel = False

    def __init__(self, root: Path, debugger: pdb.Pdb | None = None) -> None:
        self.root = root
        self.debugger = debugger
        self.recorder = Recorder(root)

    def start(self) -> None:
        """Do nothing: there is nothing to prepare."""

    def capacity(self) -> dict[str, float]:
        """Return no limit: one variant at a time has the whole machine."""
        return {}

    def run_stage(
        self,
        task: StageTask,
        variants: StageQueue,
        options: StageOptions,
        listener: VariantListener,
    ) -> None:
        """Run the variants; see :class:`~flambe.experiment.executors.base.Executor`."""
        while (variant := variants.take()) is not None:
            variants.report(in_use=0)
            if options.limits.reason:
                listener.on_skip(variant, options.limits.reason)
                continue
            self.recorder.open(
                variant.id, f"{variant.stage}/{variant.name}", variant_title(variant)
            )
            for attempt in itertools.count():
                final = attempt == options.max_failures  # never, if it is -1
                run = _InlineAttempt(self, task, variant, listener, options.limits)
                if run.execute(final=final) or final:
                    break
            options.limits.after_end()

    def save_checkpoint(self, running: VariantTask, folder: Path) -> None:
        """Write a checkpoint of a variant into its folder, and remove earlier ones."""
        # By its name, what a killed process leaves of it is removed with other parts.
        temporary = Path(tempfile.mkdtemp(prefix="checkpoint_part_", dir=folder))
        try:
            running.save(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        name = f"checkpoint_{running.step_count:06d}"
        if (folder / name).exists():  # a generator that ended after its last step
            name += "_end"
        temporary.rename(folder / name)
        Checkpoints(str(self.root)).settle(str(folder), name, running.task.retention)
        running.task.restore[running.variant.id] = str(folder / name)

    def close(self) -> None:
        """Close the files."""
        self.recorder.close()


class _InlineAttempt:
    """One attempt at a variant."""

    def __init__(
        self,
        executor: InlineExecutor,
        task: StageTask,
        variant: Variant,
        listener: VariantListener,
        limits: StageLimits,
    ) -> None:
        self.limits = limits
        self.stopped_by = ""
        self.executor = executor
        self.task = task
        self.variant = variant
        self.listener = listener
        self.recorder = executor.recorder
        self.channel = DirectChannel(executor.recorder)
        self.folder = RunFolder(executor.root).variant(variant.stage, variant.name)

    def execute(self, *, final: bool) -> bool:
        """Run the variant; return whether it is not to be retried."""
        self.listener.on_start(self.variant, socket.gethostname())
        self.folder.mkdir(parents=True, exist_ok=True)
        load_libraries(self.task.extensions)
        isolation = Isolation(self.task.extensions)
        running: VariantTask | None = None
        debugger = self.executor.debugger
        capturing = capture.printed_here if debugger is None else capture.logged
        try:
            with capturing(self._on_line):
                running = VariantTask(self.task, self.variant.id, self.channel)
                self._run_steps(running)
        except FlambeError as error:
            failure = self._failure(error)
            self.listener.on_failure(
                self.variant, failure.error, failure.text, final or failure.lasting
            )
            if final or failure.lasting:
                size = stored_bytes(Checkpoints(str(self.executor.root)), str(self.folder))
                self.listener.on_stored(self.variant, size)
            return failure.lasting
        finally:
            if running is not None:
                running.close()
            if remains := isolation.restore():
                text = f"it left {listed(remains, 3)} in the process that later variants run in"
                self._send("advice", "process", text)
            use(None)
            self.listener.on_lines(self.recorder.take_lines())
            self._send("end", "", "")
        checkpoints = Checkpoints(str(self.executor.root))
        settled = checkpoints.settle(str(self.folder), FINAL, self.task.retention)
        self.listener.on_end(self.variant, stopped=bool(self.stopped_by), reason=self.stopped_by)
        if settled is not None:
            self.listener.on_stored(self.variant, settled.size)
        return True

    def _run_steps(self, running: VariantTask) -> None:
        if self.executor.debugger is not None:
            running.stepper.call = self.executor.debugger.runcall
        more = True
        while more:
            more = running.step()
            save = partial(self.executor.save_checkpoint, running, self.folder)
            retry_when_full(save, self.folder, _log.warning)
            self.listener.on_step(
                self.variant,
                running.step_count,
                running.metric,
                socket.gethostname(),
                running.seconds,
            )
            if more:
                self.stopped_by = self.limits.after_step(running.metric, running.seconds)
                more = not self.stopped_by

    def _failure(self, error: FlambeError) -> Failure:
        """Return what the attempt failed of, and log it."""
        if text := full_message(error):
            self._send("whole", "ERROR", text)
        failure = reported_failure(error)
        if failure.exits:
            lines = [text for _, text in self.recorder.tail(self.variant.id)]
            failure = failure.followed_by(quote_last_lines(lines))
        self._on_line("ERROR", failure.text)
        return failure

    def _on_line(self, level: str, text: str) -> None:
        self._send("progress" if level == capture.PROGRESS else "line", level, text)
        self.listener.on_lines(self.recorder.take_lines())

    def _send(self, kind: str, tag: str, text: str) -> None:
        self.channel.send(Record(self.variant.id, kind, tag, text, None, time.time()))
