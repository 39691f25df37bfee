"""The actor that every worker of a run sends its output to, and asks for its task."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flambe import _disk
from flambe.experiment.executors import crash_record
from flambe.experiment.executors.failures import Failure
from flambe.experiment.executors.stage_task import StageTask
from flambe.logging import event_file, redact
from flambe.logging.events import Record
from flambe.logging.recorder import TAIL_WIDTH, Recorder
from flambe.progress import host_name


@dataclass(frozen=True)
class Origin:
    """Where the records of a source come from.

    Attributes
    ----------
    folder
        The folder of the source, below that of the run.
    title
        How it is called in messages.
    attempt
        The number of the attempt at the variant.
    node, crash_folder
        The node that it runs on, and the folder of its crash record there.
    """

    folder: str
    title: str
    attempt: int = 1
    node: str = ""
    crash_folder: str = ""


@dataclass(frozen=True)
class Batch:
    """Records of one worker.

    Attributes
    ----------
    sender, number
        The worker, and the number of the batch among its batches, from 1.
    records
        The records.
    origins
        Source → where it is, for all sources of the records.
    """

    sender: str
    number: int
    records: list[Record]
    origins: dict[str, Origin] = field(default_factory=dict)


@dataclass(frozen=True)
class CollectorStatus:
    """What the driver polls from the collector.

    Attributes
    ----------
    process
        Identifies this process of the collector: a restarted one has another.
    lines
        See :meth:`Recorder.take_lines`.
    refusal, refused_for
        Why its disk refuses records, and for how many seconds it has; empty if it does not.
    """

    process: str
    lines: list[tuple[str, str, str]]
    refusal: str = ""
    refused_for: float = 0.0


class Collector:
    """The actor that holds the recorder, on the host of the driver; every worker sends to it.

    When its process is killed, Ray restarts it: what was written is not written twice, and what was
    not is sent again by the workers. The driver then gives it the tasks again.

    Parameters
    ----------
    root
        The folder of the run.
    secrets
        The values that are hidden in output.
    identity
        The identity of the run.
    """

    def __init__(self, root: str, secrets: Sequence[str], identity: str = "") -> None:
        for value in secrets:
            redact.add(value)
        event_file.load_libraries()
        self.process = uuid.uuid4().hex
        self._refused: tuple[str, float] | None = None
        self.recorder = Recorder(root, identity)
        self.tasks: dict[str, StageTask] = {}
        self.failures: dict[str, Failure] = {}
        #: Id → the latest attempt at a variant; and the origins of those that have not ended.
        self.attempts: dict[str, int] = {}
        self.origins: dict[str, Origin] = {}

    def secrets(self) -> list[str]:
        """Return the values that are hidden: an error of a worker must not reveal them."""
        return sorted(redact.values())

    def set_task(self, task: StageTask) -> None:
        """Keep the task of a stage for the workers."""
        self.tasks[task.stage] = task

    def task(self, stage: str) -> StageTask | None:
        """Return the task of a stage; None if the driver has not set it yet."""
        return self.tasks.get(stage)

    def begin(self, source: str, origin: Origin) -> None:
        """Record that an attempt at a variant begins."""
        if self._is_latest(source, origin):
            self.failures.pop(source, None)

    def _is_latest(self, source: str, origin: Origin) -> bool:
        """Whether an attempt is the latest at its variant: others are on hosts that were lost."""
        if origin.attempt < self.attempts.get(source, 0):
            return False
        self.attempts[source] = origin.attempt
        self.origins[source] = origin
        self.recorder.open(source, origin.folder, origin.title)
        return True

    def take_crash_folder(self, source: str) -> tuple[str, str] | None:
        """Return the node that a variant was on, and its crash folder there; once."""
        origin = self.origins.pop(source, None)
        if origin is None or not origin.crash_folder:
            return None
        return origin.node, origin.crash_folder

    def last_lines(self, source: str, printed: Mapping[str, Sequence[str]]) -> list[str]:
        """Record what a process printed before it died and did not arrive here.

        Returns
        -------
        list of str
            The last lines of the variant.
        """
        for level, lines in printed.items():
            arrived = [text for name, text in self.recorder.tail(source) if name == level]
            redacted = [redact.hide(line)[:TAIL_WIDTH] for line in lines]
            missing = crash_record.missing_lines(redacted, arrived)
            now = time.time()
            records = [Record(source, "line", level, line, None, now) for line in missing]
            self.recorder.write(records)
        return [text for _, text in self.recorder.tail(source)]

    def report_failure(self, source: str, failure: Failure, attempt: int = 1) -> None:
        """Keep why a variant failed until the driver asks for it, or the variant begins again."""
        if attempt < self.attempts.get(source, 0):
            return
        if failure.exits:
            lines = [text for level, text in self.recorder.tail(source) if level != "ERROR"]
            failure = failure.followed_by(crash_record.quote_last_lines(lines))
        self.failures[source] = failure

    def take_failure(self, source: str) -> Failure | None:
        """Return what a variant reported, once."""
        return self.failures.pop(source, None)

    def write(self, batch: Batch) -> None:
        """Write records; those of attempts that were given up are dropped.

        Raises
        ------
        OSError
            If they cannot be written: none is then.
        """
        late = {s for s, origin in batch.origins.items() if not self._is_latest(s, origin)}
        records = [record for record in batch.records if record.source not in late]
        try:
            self.recorder.write(records, batch.sender, batch.number)
        except OSError as error:
            if self._refused is None:
                reason = _disk.reason(error, self.recorder.root, host_name())
                self._refused = (reason, time.monotonic())
            raise
        self._refused = None

    def log_error(self, source: str, origin: Origin, text: str) -> None:
        """Write an error that the driver found into the log of a variant."""
        self.recorder.open(source, origin.folder, origin.title)
        self.recorder.write([Record(source, "line", "ERROR", text, None, time.time())])

    def poll(self) -> CollectorStatus:
        """Return what happened to the output since the last call."""
        refusal, since = self._refused or ("", time.monotonic())
        lines = self.recorder.take_lines()
        return CollectorStatus(self.process, lines, refusal, time.monotonic() - since)

    def close(self) -> None:
        """See :meth:`Recorder.close`."""
        self.recorder.close()
