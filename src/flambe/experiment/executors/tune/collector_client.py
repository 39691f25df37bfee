"""Calls to the collector of a run, an actor that Ray restarts when its process is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError

from flambe._hints import to_continue
from flambe._retry import retry
from flambe.errors import RunError
from flambe.experiment.executors.failures import Failure
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.tune.collector import Batch, Collector, CollectorStatus, Origin

P = ParamSpec("P")
T = TypeVar("T")

ANSWER_SECONDS = 60.0  # that a worker waits for an answer
DRIVER_SECONDS = 30.0  # that the driver waits
START_SECONDS = 180.0  # that the collector may take to start, on a busy host
CLOSE_SECONDS = 10.0
PAUSE = 0.2  # seconds between attempts
_GONE = (
    "the process that collects the output of variants ended and cannot be restarted: its host may "
    "be out of memory"
)
_SILENT = (
    f"the process that collects the output of variants has not answered for {START_SECONDS:.0f} s: "
    "its host may be overloaded"
)


class CollectorClient:
    """The collector, as workers and the driver call it.

    Each call that returns something waits for the answer, and is repeated while the collector is
    being restarted. It raises RunError if the collector does not come back, and GetTimeoutError
    if it does not answer.

    Parameters
    ----------
    handle
        The actor.
    """

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle

    def _call(
        self,
        method: Callable[Concatenate[Collector, P], T],
        seconds: float,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a method of the collector, with its declared types: Ray knows none."""
        remote = getattr(self._handle, method.__name__).remote
        end = time.monotonic() + seconds

        def answer() -> T:
            result: T = ray.get(remote(*args, **kwargs), timeout=max(1.0, end - time.monotonic()))
            return result

        try:
            return retry(answer, seconds=seconds, on=RayActorError, pause=PAUSE, longest=PAUSE)
        except RayActorError:
            raise RunError(_GONE) from None

    # -- calls of workers ---------------------------------------------------------------------

    def secrets(self) -> list[str]:
        """Return the values that are hidden in output."""
        return self._call(Collector.secrets, ANSWER_SECONDS)

    def task(self, stage: str) -> StageTask | None:
        """Return the task of a stage; None if the driver has not set it yet."""
        return self._call(Collector.task, ANSWER_SECONDS, stage)

    def begin(self, source: str, origin: Origin) -> None:
        """Announce an attempt at a variant, without waiting."""
        self._handle.begin.remote(source, origin)

    def report_failure(self, source: str, failure: Failure, attempt: int) -> None:
        """Report why an attempt at a variant failed."""
        self._call(Collector.report_failure, ANSWER_SECONDS, source, failure, attempt)

    def write(self, batch: Batch, seconds: float) -> None:
        """Send records, once: the caller repeats what is not acknowledged.

        Raises
        ------
        RayActorError
            If the collector is being restarted.
        GetTimeoutError
            If it does not answer.
        OSError
            If its disk refuses the records.
        """
        ray.get(self._handle.write.remote(batch), timeout=seconds)

    # -- calls of the driver ------------------------------------------------------------------

    def set_task(self, task: StageTask) -> None:
        """Give the collector the task of a stage; the first call waits for its start.

        Raises
        ------
        RunError
            If it does not answer.
        """
        try:
            self._call(Collector.set_task, START_SECONDS, task)
        except GetTimeoutError:  # an OSError, which a run would take for one of its disk
            raise RunError(f"{_SILENT}\n  {to_continue()}") from None

    def resend_task(self, task: StageTask) -> None:
        """Give a restarted collector the task of a stage, without waiting."""
        self._handle.set_task.remote(task)

    def poll(self) -> CollectorStatus:
        """Return what happened to the output since the last call."""
        return self._call(Collector.poll, DRIVER_SECONDS)

    def take_failure(self, source: str) -> Failure | None:
        """Return what a variant reported, once."""
        return self._call(Collector.take_failure, DRIVER_SECONDS, source)

    def take_crash_folder(self, source: str) -> tuple[str, str] | None:
        """Return the node that a variant was on, and its crash folder there, once."""
        return self._call(Collector.take_crash_folder, DRIVER_SECONDS, source)

    def last_lines(self, source: str, printed: Mapping[str, Sequence[str]]) -> list[str]:
        """Record what a process printed before it died; return the last lines of the variant."""
        return self._call(Collector.last_lines, DRIVER_SECONDS, source, printed)

    def log_error(self, source: str, origin: Origin, text: str) -> None:
        """Write an error into the log of a variant."""
        self._call(Collector.log_error, DRIVER_SECONDS, source, origin, text)

    def close(self) -> None:
        """Close the files."""
        ray.get(self._handle.close.remote(), timeout=CLOSE_SECONDS)
