"""A trial of Ray Tune: the worker's side."""

from __future__ import annotations

import collections
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
from flambe.experiment import storage
from flambe.experiment.engines import METRIC, STEPS
from flambe.experiment.executor import variant_title
from flambe.experiment.failures import reported, whole_text
from flambe.experiment.isolation import Isolation, load_libraries
from flambe.experiment.last_words import Will
from flambe.experiment.task import StageTask, VariantTask
from flambe.experiment.variants import Variant
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
# How often what components said is sent and shown, in seconds.
LINE_PERIOD = 0.2
# How long a process may take to end.
END_SECONDS = 5.0
_NOT_AGAIN = (
    "its process is not used for another variant, for it left {left}: a process that is started "
    "anew takes a second or two (end threads and programs before the last step returns)"
)
# Records that wait in a worker before it is slowed down, and that are sent at once.
MOST_WAITING = 50_000
BATCH = 2_000


class _CollectorChannel:
    """Sends records to the collector in the background, in batches and in order."""

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self.waiting: collections.deque[Record] = collections.deque()
        self.sent = self.taken = 0
        self.hurry = False
        self.changed = threading.Condition()
        threading.Thread(target=self._run, name="flambe-channel", daemon=True).start()

    def send(self, record: Record) -> None:
        """Take a record; waits when the collector is far behind."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.waiting) < MOST_WAITING, timeout=60)
            self.waiting.append(record)
            self.taken += 1
            if len(self.waiting) == 1:
                self.changed.notify_all()

    def flush(self) -> None:
        """Return when all that was sent has arrived, or after ten seconds."""
        with self.changed:
            last, self.hurry = self.taken, True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.sent >= last, timeout=10)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.waiting))
                # A moment's patience makes few batches of many lines.
                self.changed.wait_for(lambda: self.hurry, timeout=LINE_PERIOD)
                batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), BATCH))]
            try:
                ray.get(self.collector.write.remote(batch))
            except Exception:  # the run is being shut down, or the collector is lost
                logging.getLogger(__name__).debug("could not send %d records", len(batch))
            with self.changed:
                self.sent += len(batch)
                self.hurry = self.hurry and bool(self.waiting)
                self.changed.notify_all()


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
        for value in ray.get(self.collector.secrets.remote()):
            redact.add(value)
        self.channel = _CollectorChannel(self.collector)
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
        if whole := whole_text(error):
            self.channel.send(Record(self.source, "whole", "ERROR", whole, None, time.time()))
        failure = reported(error).hidden()
        self._take("ERROR", failure.text)
        self.channel.flush()
        with contextlib.suppress(Exception):  # the collector is lost: so is the run
            ray.get(self.collector.report_failure.remote(self.source, failure))
        return failure.text

    def _take(self, level: str, text: str) -> None:
        kind = "progress" if level == capture.PROGRESS else "line"
        self.channel.send(Record(self.source, kind, level, text, None, time.time()))

    def _begin(self, config: dict[str, Any]) -> None:
        if self.stage_task is None or self.stage_task.stage != config["stage"]:
            self.stage_task = ray.get(self.collector.task.remote(config["stage"]))
            _export(self.stage_task.secrets)
        load_libraries(self.stage_task.extensions)
        self.config = config
        self.running = None
        variant = self._variant(config)
        self.source = variant.id
        folder = f"{variant.stage}/{variant.name}"
        self.collector.open.remote(variant.id, folder, variant_title(variant))
        node = ray.get_runtime_context().get_node_id()
        self.collector.attend.remote(variant.id, node, str(self.will.folder))
        self.isolation = Isolation(self.stage_task.extensions)

    def _variant(self, config: dict[str, Any]) -> Variant:
        assert self.stage_task is not None
        return self.stage_task.of(
            config["variant"], config.get("values") or {}, config.get(REPETITION, 0)
        )

    def _run_variant(self) -> VariantTask:
        """Return what runs the variant; it is built in the first step."""
        if self.running is None:
            assert self.stage_task is not None
            self.running = VariantTask(self.stage_task, self.source, self.channel)
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
        with tempfile.TemporaryDirectory(prefix="flambe-checkpoint-") as empty:
            saved = storage.patiently(lambda: save(empty), what)

        # What is said up to a checkpoint is kept as long as the checkpoint is: a run that is killed
        # is resumed after it, and says it no more.
        self.channel.flush()

        def write() -> None:
            assert self.stage_task is not None
            with self.stage_task.storage.writing(saved.checkpoint.path) as folder:
                self._run_variant().save(folder)

        storage.patiently(write, what)
        return saved

    @_reported
    def restore(self, checkpoint_path: Any) -> None:
        """Go on from a checkpoint; a lost connection is made anew."""
        restore = super().restore
        storage.patiently(lambda: restore(checkpoint_path), "a checkpoint is read")

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
