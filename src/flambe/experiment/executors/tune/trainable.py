"""A trial of Ray Tune: the worker's side."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from flambe.errors import RunError, listed
from flambe.experiment.executors.failures import full_message, reported_failure
from flambe.experiment.executors.isolation import Isolation, load_libraries
from flambe.experiment.executors.last_words import Will
from flambe.experiment.executors.stage_task import StageTask, variant_title
from flambe.experiment.executors.tune.channel import LINE_PERIOD, CollectorChannel
from flambe.experiment.executors.tune.collector import Origin
from flambe.experiment.executors.tune.collector_calls import answer
from flambe.experiment.executors.variant_task import VariantTask
from flambe.experiment.search.engines import METRIC, STEPS
from flambe.experiment.storage import checkpoint_storage
from flambe.experiment.variants.expansion import Variant
from flambe.logging import capture, load, redact
from flambe.logging.console import home
from flambe.logging.events import Record
from flambe.progress import host_name
from flambe.runnable.secrets import Secrets

P = ParamSpec("P")
T = TypeVar("T")

NAMESPACE = "flambe"
AT_END = "at_end"
HOST = "flambe_host"
#: In the configuration of a trial: how often a search had suggested the same values before.
REPETITION = "repetition"
#: … and which attempt at its variant it is: the driver counts them.
ATTEMPT = "attempt"
MOST_CHECKPOINTS = 10**6  # of one attempt
TASK_SECONDS = 120.0  # how long the driver may take to give a task to the collector
# How long a process may take to end.
END_SECONDS = 5.0
_NOT_AGAIN = (
    "its process is not used for another variant, for it left {left}: a process that is started "
    "anew takes a second or two (end threads and programs before the last step returns)"
)


def _reported(method: Callable[P, T]) -> Callable[P, T]:
    """Report whatever a method of a trial raises; what is secret in it stays here.

    Ray and Tune hear that it failed, and of what in one text: an exception of a component may be
    one that does not survive the way, or that ends their process.
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

    def setup(self, config: dict[str, Any]) -> None:
        """Begin with the variant of a configuration."""
        quiet_loggers()
        self.stage_task: StageTask | None = None
        self.running: VariantTask | None = None
        self.collector = ray.get_actor(config["collector"], namespace=NAMESPACE)
        for value in answer(self.collector.secrets.remote):
            redact.add(value)
        self.channel = CollectorChannel(self.collector)
        self.source = ""
        load.watch(self.channel.send)
        self.terminated = False
        self._note_sigterm()
        self.will = Will()
        self.printed = capture.Printed(self._take, self.will.folder)
        self.printed.start()
        self._logged = contextlib.ExitStack()
        self._logged.enter_context(capture.logged(self._take))
        self._begin(config)

    def _note_sigterm(self) -> None:
        """Know it when Ray ends this process: what is raised then is not the component's."""
        earlier: Any = signal.getsignal(signal.SIGTERM)

        def terminate(number: int, frame: Any) -> None:
            self.terminated = True
            if callable(earlier):
                earlier(number, frame)
            sys.exit(1)

        signal.signal(signal.SIGTERM, terminate)

    def report(self, error: BaseException) -> str:
        """Report what ends the trial, and log it; return what Ray may know of it."""
        self.printed.settle()
        if whole := full_message(error):
            self.channel.send(Record(self.source, "whole", "ERROR", whole, None, time.time()))
        failure = reported_failure(error).redacted()
        self._take("ERROR", failure.text)
        if not failure.halts:  # else its disk may take nothing
            self.channel.flush()
        with contextlib.suppress(Exception):  # the collector is lost: so is the run
            answer(lambda: self.collector.report_failure.remote(self.source, failure, self.attempt))
        return failure.text

    def _take(self, level: str, text: str) -> None:
        kind = "progress" if level == capture.PROGRESS else "line"
        self.channel.send(Record(self.source, kind, level, text, None, time.time()))

    def _begin(self, config: dict[str, Any]) -> None:
        if self.stage_task is None or self.stage_task.stage != config["stage"]:
            self.stage_task = self._task(config["stage"])
            _export(self.stage_task.secrets)
        load_libraries(self.stage_task.extensions)
        self.config = config
        self.running = None
        variant = self._variant(config)
        self.source = variant.id
        self.attempt = int(config.get(ATTEMPT, 1))
        node = ray.get_runtime_context().get_node_id()
        folder, title = f"{variant.stage}/{variant.name}", variant_title(variant)
        origin = Origin(folder, title, self.attempt, node, str(self.will.folder))
        self.channel.begin(variant.id, origin)
        self.isolation = Isolation(self.stage_task.extensions)

    def _task(self, stage: str) -> StageTask:
        """Return the task of a stage; a collector that was started again gets it from the driver.

        Raises
        ------
        RunError
            If it does not.
        """
        end = time.monotonic() + TASK_SECONDS
        while time.monotonic() < end:
            task: StageTask | None = answer(lambda: self.collector.task.remote(stage))
            if task is not None:
                return task
            time.sleep(LINE_PERIOD)
        raise RunError(f"the task of stage {stage!r} was not given to its workers")

    def _variant(self, config: dict[str, Any]) -> Variant:
        assert self.stage_task is not None
        return self.stage_task.variant_of(
            config["variant"], config.get("values") or {}, config.get(REPETITION, 0)
        )

    def _run_variant(self) -> VariantTask:
        """Return what runs the variant; it is built in the first step."""
        if self.running is None:
            assert self.stage_task is not None
            self.running = VariantTask(self.stage_task, self.source, self.channel, self.attempt)
            self._iteration = self.running.step_count
        return self.running

    @_reported
    def step(self) -> dict[str, Any]:
        """Do one step of the variant."""
        running = self._run_variant()
        more = running.step()
        if not more:
            self._end()
        # Tune sets its own "done" too when a scheduler stops a trial.
        result: dict[str, Any] = {
            STEPS: running.step_count,
            AT_END: not more,
            tune.result.DONE: not more,
            HOST: host_name(),
        }
        if running.metric is not None:
            result[METRIC] = running.metric
        return result

    @_reported
    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Write a checkpoint and bring it to the run's folder; a lost connection is made anew.

        Tune says where, and is given an empty folder to bring there: it would copy file by file.
        """
        save, what = super().save, "a checkpoint is written"
        assert self.stage_task is not None
        at = self.stage_task.storage
        # Tune counts checkpoints from where it knows of: what an attempt writes that was given up,
        # on a host that was lost, must not meet them.
        first = (self.attempt - 1) * MOST_CHECKPOINTS
        self._storage.current_checkpoint_index = max(self._storage.current_checkpoint_index, first)
        with tempfile.TemporaryDirectory(prefix="flambe-checkpoint-") as empty:
            saved = checkpoint_storage.patiently(lambda: save(empty), what, at)

        # What is said up to a checkpoint is kept as long as the checkpoint is: a run that is killed
        # is resumed after it, and says it no more.
        self.channel.flush()

        def write() -> None:
            with at.writing(saved.checkpoint.path) as folder:
                self._run_variant().save(folder)

        checkpoint_storage.patiently(write, what, at)
        return saved

    @_reported
    def restore(self, checkpoint_path: Any) -> None:
        """Go on from a checkpoint; a lost connection is made anew."""
        restore = super().restore
        checkpoint_storage.patiently(lambda: restore(checkpoint_path), "a checkpoint is read")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Leave the folder empty: see :meth:`save`."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint: after a failure, or when another variant is exploited."""
        self._run_variant().restore(Path(checkpoint))

    @_reported
    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another variant in this process, or say that it has to be another process."""
        if left := self._leave():
            text = _NOT_AGAIN.format(left=listed(left, 3))
            self.channel.send(Record(self.source, "advice", "process", text, None, time.time()))
            self.channel.flush()
            return False
        self._begin(new_config)
        return True

    def _leave(self) -> list[str]:
        """Leave nothing of a variant; return what is left for which the process has to end."""
        ended = self.running is None or self.running.done
        if self.running is not None:
            self.running.close()
        self.running = None
        left = self.isolation.restore()
        if not ended:
            self._end()  # a scheduler stopped it
        self.printed.settle()
        return left

    def _end(self) -> None:
        """See that all that the variant said has arrived."""
        self.printed.settle()
        self.channel.send(Record(self.source, "end", "", None, None, time.time()))
        self.channel.flush()

    def cleanup(self) -> None:
        """Give the process back."""
        self._leave()
        self.printed.stop()
        self._logged.close()
        self.channel.flush()
        self.will.revoke()
        # A thread of a component may keep Python from ending.
        last = threading.Timer(END_SECONDS, os._exit, [0])
        last.daemon = True
        last.start()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Return what a variant occupies."""
        devices = dict(config["devices"])
        bundle = {"CPU": devices.pop("cpu", 1.0), "GPU": devices.pop("gpu", 0.0), **devices}
        return PlacementGroupFactory([{k: v for k, v in bundle.items() if v}])


def _export(secrets: str) -> None:
    """Set the environment variables that this host was given secretly."""
    path = home() / secrets
    if secrets and path.is_file():
        Secrets.read(path).export()


def quiet_loggers() -> None:
    """Keep what libraries tell of their own doings out of the logs of components."""
    for name in ("ray", "ray.train", "ray._private", "asyncssh", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    # What becomes of trials is told by flambe.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
