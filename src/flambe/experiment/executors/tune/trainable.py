"""A trial of Ray Tune: the worker's side."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from flambe._retry import poll
from flambe.errors import DamagedError, RunError, listed
from flambe.experiment.executors.crash_record import CrashRecorder
from flambe.experiment.executors.failures import full_message, reported_failure
from flambe.experiment.executors.isolation import Isolation, load_libraries
from flambe.experiment.executors.stage_task import Explored, StageTask, variant_title
from flambe.experiment.executors.tune.channel import LINE_PERIOD, CollectorChannel
from flambe.experiment.executors.tune.collector import Origin
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.executors.tune.ray_process import quiet_loggers
from flambe.experiment.executors.tune.trial import (
    ATTEMPT,
    COPIES,
    EXPLORED,
    NAMESPACE,
    RECORDED,
    REPETITION,
    TrialConfig,
    TrialResult,
)
from flambe.experiment.executors.variant_task import VariantTask
from flambe.experiment.storage import checkpoint_storage
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.variants.expansion import Variant
from flambe.logging import capture, load, redact
from flambe.logging.console import home
from flambe.logging.events import Record
from flambe.progress import host_name
from flambe.runnable.secrets import Secrets

P = ParamSpec("P")
T = TypeVar("T")

MAX_CHECKPOINTS = 10**7  # of one attempt
TASK_SECONDS = 120.0  # how long the driver may take to give a task to the collector
END_SECONDS = 5.0  # how long a process may take to end
_NOT_REUSED = (
    "its process is not reused for another variant, because it left {remains}: starting a new "
    "process takes a second or two (end threads and programs before the last step returns)"
)


def _reporting(method: Callable[P, T]) -> Callable[P, T]:
    """Report whatever a method of a trial raises, so that its secrets stay on this host.

    Ray and Tune only get a RunError with the message: an exception of a component may not survive
    pickling, or may end their process.
    """

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        trial = args[0]
        assert isinstance(trial, VariantTrainable)
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            if trial.terminated:
                raise SystemExit(1) from None  # whatever a component made of it
            text = trial.report(error)
        raise RunError(text)

    return wrapper


class VariantTrainable(tune.Trainable):  # type: ignore[misc]
    """A trial: one variant after another in one process."""

    def setup(self, config: TrialConfig) -> None:
        """Begin with the variant of a configuration."""
        quiet_loggers()
        self.stage_task: StageTask | None = None
        self.running: VariantTask | None = None
        self.collector = CollectorClient(ray.get_actor(config["collector"], namespace=NAMESPACE))
        for value in self.collector.secrets():
            redact.add(value)
        self.channel = CollectorChannel(self.collector)
        self.source = ""
        load.watch(self.channel.send)
        self.terminated = False
        self._note_sigterm()
        self.crash_recorder = CrashRecorder()
        self.printed = capture.Printed(self._on_line, self.crash_recorder.folder)
        self.printed.start()
        self._logged = contextlib.ExitStack()
        self._logged.enter_context(capture.logged(self._on_line))
        self._begin(config)

    def _note_sigterm(self) -> None:
        """Record when Ray ends this process: what is raised then is not the component's."""
        earlier = signal.getsignal(signal.SIGTERM)

        def terminate(number: int, frame: FrameType | None) -> None:
            self.terminated = True
            if callable(earlier):
                earlier(number, frame)
            sys.exit(1)

        signal.signal(signal.SIGTERM, terminate)

    def report(self, error: BaseException) -> str:
        """Report and log what ends the trial; return the message for Ray."""
        self.printed.settle()
        if text := full_message(error):
            self._send("whole", "ERROR", text)
        failure = reported_failure(error).redacted()
        self._on_line("ERROR", failure.text)
        if not failure.halts:  # else the disk of the collector may be full
            self.channel.flush()
        with contextlib.suppress(Exception):  # without the collector, the run ends
            self.collector.report_failure(self.source, failure, self.attempt)
        return failure.text

    def _on_line(self, level: str, text: str) -> None:
        self._send("progress" if level == capture.PROGRESS else "line", level, text)

    def _send(self, kind: str, tag: str, text: str) -> None:
        self.channel.send(Record(self.source, kind, tag, text, None, time.time()))

    def _begin(self, config: TrialConfig) -> None:
        if self.stage_task is None or self.stage_task.stage != config["stage"]:
            self.stage_task = self._task(config["stage"])
            _export_secrets(self.stage_task.secrets)
        load_libraries(self.stage_task.extensions)
        self.config = config
        self.running = None
        variant = self._variant(self.stage_task, config)
        self.source = variant.id
        self.attempt = config.get(ATTEMPT, 1)
        node = ray.get_runtime_context().get_node_id()
        folder, title = f"{variant.stage}/{variant.name}", variant_title(variant)
        origin = Origin(folder, title, self.attempt, node, str(self.crash_recorder.folder))
        self.channel.begin(variant.id, origin)
        self.isolation = Isolation(self.stage_task.extensions)

    def _task(self, stage: str) -> StageTask:
        """Return the task of a stage; a restarted collector gets it again from the driver.

        Raises
        ------
        RunError
            If it does not.
        """
        task = poll(lambda: self.collector.task(stage), seconds=TASK_SECONDS, pause=LINE_PERIOD)
        if task is None:
            raise RunError(f"the workers did not get the task of stage {stage!r}")
        return task

    @staticmethod
    def _variant(task: StageTask, config: TrialConfig) -> Variant:
        if RECORDED in config:
            return task.variants[task.stage][config[RECORDED]]
        values = config.get("values") or {}
        return task.variant_of(config["variant"], values, config.get(REPETITION, 0))

    def _run_variant(self) -> VariantTask:
        """Return what runs the variant; it is built in the first step."""
        if self.running is None:
            assert self.stage_task is not None
            config: TrialConfig = self.config
            explored = None
            if EXPLORED in config:
                explored = Explored(config[EXPLORED], config.get(COPIES, 0))
            self.running = VariantTask(
                self.stage_task, self.source, self.channel, self.attempt, explored
            )
            self._iteration = self.running.step_count
            self._time_total = self.running.seconds
        return self.running

    @_reporting
    def step(self) -> TrialResult:
        """Do one step of the variant."""
        running = self._run_variant()
        more = running.step()
        if not more:
            self._end()
        result: TrialResult = {
            "steps": running.step_count,
            "at_end": not more,
            "done": not more,
            "flambe_host": host_name(),
        }
        if running.metric is not None:
            result["metric"] = running.metric
        return result

    @_reporting
    def save(self, checkpoint_dir: str | None = None) -> object:
        """Write a checkpoint and copy it to the run's folder; reconnects where necessary.

        Tune chooses the path, and is given an empty folder to copy there: it would copy file by
        file.
        """
        save, purpose = super().save, "a checkpoint is written"
        assert self.stage_task is not None
        storage = self.stage_task.storage
        # Tune counts checkpoints from those that it knows: what an attempt writes that was given
        # up, on a host that was lost, must not have the same names (tests/.../test_attempts.py).
        # Nor must one be overwritten after a pause, when Tune counts again from what it knows:
        # another member of a population may need it (test_members_copy_better_ones).
        running = self._run_variant()
        first = (self.attempt - 1) * MAX_CHECKPOINTS
        if first or EXPLORED in self.config:
            first += 2 * running.step_count + running.done
        self._storage.current_checkpoint_index = max(self._storage.current_checkpoint_index, first)
        with tempfile.TemporaryDirectory(prefix="flambe-checkpoint-") as empty:
            saved = checkpoint_storage.retry_access(lambda: save(empty), purpose, storage)

        # Output before a checkpoint is kept as long as the checkpoint is: a run that is killed
        # resumes after it, and does not print it again.
        self.channel.flush()

        def write() -> None:
            running.seconds = self._time_total  # as Tune counts them: building it is a part
            with storage.writing(saved.checkpoint.path) as folder:
                running.save(folder)

        checkpoint_storage.retry_access(write, purpose, storage)
        return saved

    @_reporting
    def restore(self, checkpoint_path: object) -> None:
        """Continue from a checkpoint; reconnects where necessary.

        If it is damaged, or gone, the trial continues from the newest one beside it, or starts
        again (test_a_retry_continues_from_the_checkpoint_before_a_damaged_one).
        """
        restore = super().restore
        try:
            checkpoint_storage.retry_access(
                lambda: restore(checkpoint_path), "a checkpoint is read"
            )
        except (DamagedError, ValueError) as error:  # ValueError: of Tune, if it is gone
            path = str(getattr(getattr(checkpoint_path, "checkpoint", None), "path", ""))
            assert self.stage_task is not None
            checkpoints = self.stage_task.storage.everywhere()
            if not isinstance(error, DamagedError) and checkpoints.manifest(path) is not None:
                raise
            self._restore_other(checkpoints, path, str(error))

    def _restore_other(self, checkpoints: Checkpoints, path: str, reason: str) -> None:
        """Continue from the newest sound checkpoint beside one that cannot be read."""
        folder = posixpath.dirname(path)
        checkpoints.condemn(path)
        checkpoints.drop_damaged(folder)
        other = checkpoints.latest(folder)
        running = self._run_variant()
        if other is not None:
            running.restore(running.task.storage.fetch(other))
        self._iteration = running.step_count
        self._on_line("WARNING", f"{reason}; it continues after step {running.step_count}")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Leave the folder empty: see :meth:`save`."""

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continue from a checkpoint after a failure."""
        running = self._run_variant()
        running.restore(Path(checkpoint))
        self._iteration, self._time_total = running.step_count, running.seconds

    @_reporting
    def reset_config(self, new_config: TrialConfig) -> bool:
        """Continue with another variant, or return False: it needs another process."""
        if remains := self._leave():
            self._send("advice", "process", _NOT_REUSED.format(remains=listed(remains, 3)))
            self.channel.flush()
            return False
        self._begin(new_config)
        return True

    def _leave(self) -> list[str]:
        """Remove what a variant changed in the process; return what cannot be removed."""
        ended = self.running is None or self.running.done
        if self.running is not None:
            self.running.close()
        self.running = None
        remains = self.isolation.restore()
        if not ended:
            self._end()  # a scheduler stopped it
        self.printed.settle()
        return remains

    def _end(self) -> None:
        """Wait until all output of the variant has arrived."""
        self.printed.settle()
        self._send("end", "", "")
        self.channel.flush()

    def cleanup(self) -> None:
        """Prepare the process to end."""
        self._leave()
        self.printed.stop()
        self._logged.close()
        self.channel.flush()
        self.crash_recorder.close()
        # A thread of a component may keep Python from exiting.
        last = threading.Timer(END_SECONDS, os._exit, [0])
        last.daemon = True
        last.start()

    @classmethod
    def default_resource_request(cls, config: TrialConfig) -> PlacementGroupFactory:
        """Return what a variant occupies."""
        devices = dict(config["devices"])
        bundle = {"CPU": devices.pop("cpu", 1.0), "GPU": devices.pop("gpu", 0.0), **devices}
        return PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])


def _export_secrets(secrets: str) -> None:
    """Set the environment variables of this host's secrets file."""
    path = home() / secrets
    if secrets and path.is_file():
        Secrets.read(path).export()
