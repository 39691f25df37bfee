"""The one place of a run that every worker sends to, and asks for its task."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flambe import _disk
from flambe.experiment.executors import last_words
from flambe.experiment.executors.failures import Failure
from flambe.experiment.executors.stage_task import StageTask
from flambe.logging import redact
from flambe.logging.events import Record
from flambe.logging.recorder import TAIL_WIDTH, Recorder
from flambe.progress import host_name


@dataclass(frozen=True)
class Origin:
    """Where what a source says comes from.

    Attributes
    ----------
    folder
        Of the source, below that of the run.
    title
        What people call it.
    attempt
        Which attempt at the variant it is.
    node, will
        The node that it is on, and the folder of its last words there.
    """

    folder: str
    title: str
    attempt: int = 1
    node: str = ""
    will: str = ""


@dataclass(frozen=True)
class Batch:
    """Records of one worker.

    Attributes
    ----------
    sender, number
        Who sends it, and which of its batches it is, the first being 1.
    records
        The records.
    origins
        Source → where it is, of all that have records.
    """

    sender: str
    number: int
    records: list[Record]
    origins: dict[str, Origin] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What the driver asks a collector for, again and again.

    Attributes
    ----------
    process
        Tells this process of the collector from those before it.
    lines
        See :meth:`Recorder.take_lines`.
    refusal, refused_for
        Why its disk takes nothing, and for how many seconds; nothing if it does.
    """

    process: str
    lines: list[tuple[str, str, str]]
    refusal: str = ""
    refused_for: float = 0.0


class Collector:
    """The actor that holds the recorder, beside the driver; every host sends to it.

    When its process is killed, Ray starts it again: what was written is not written twice, and what
    was not is sent again by the workers. The driver gives it the tasks then.

    Parameters
    ----------
    root
        The folder of the run.
    secrets
        What is hidden.
    identity
        Of the run.
    """

    def __init__(self, root: str, secrets: Sequence[str], identity: str = "") -> None:
        for value in secrets:
            redact.add(value)
        self.process = uuid.uuid4().hex
        self._refused: tuple[str, float] | None = None
        self.recorder = Recorder(root, identity)
        self.tasks: dict[str, StageTask] = {}
        self.failures: dict[str, Failure] = {}
        #: Id → the latest attempt at a variant; and of those that are not over, where it is.
        self.attempts: dict[str, int] = {}
        self.origins: dict[str, Origin] = {}

    def secrets(self) -> list[str]:
        """Return what is hidden: an error of a worker must not carry it away."""
        return sorted(redact.values())

    def set_task(self, task: StageTask) -> None:
        """Keep the task of a stage for the workers to ask for."""
        self.tasks[task.stage] = task

    def task(self, stage: str) -> StageTask | None:
        """Return the task of a stage; None if the driver has not given it yet."""
        return self.tasks.get(stage)

    def begin(self, source: str, origin: Origin) -> None:
        """Note that an attempt at a variant begins."""
        if self._counts(source, origin):
            self.failures.pop(source, None)

    def _counts(self, source: str, origin: Origin) -> bool:
        """Whether an attempt is the latest at its variant: others are on hosts that were lost."""
        if origin.attempt < self.attempts.get(source, 0):
            return False
        self.attempts[source] = origin.attempt
        self.origins[source] = origin
        self.recorder.open(source, origin.folder, origin.title)
        return True

    def will(self, source: str) -> tuple[str, str] | None:
        """Return the node that a variant was on, and the folder of its last words there."""
        origin = self.origins.pop(source, None)
        return (origin.node, origin.will) if origin is not None and origin.will else None

    def last_lines(self, source: str, printed: Mapping[str, Sequence[str]]) -> list[str]:
        """Record what a process printed before it died, as far as it did not arrive.

        Returns
        -------
        list of str
            The last lines of the variant.
        """
        for level, lines in printed.items():
            taken = [text for known, text in self.recorder.tail(source) if known == level]
            hidden = [redact.hide(line)[:TAIL_WIDTH] for line in lines]
            missing = last_words.unseen(hidden, taken)
            now = time.time()
            records = [Record(source, "line", level, line, None, now) for line in missing]
            self.recorder.write(records)
        return [text for _, text in self.recorder.tail(source)]

    def report_failure(self, source: str, failure: Failure, attempt: int = 1) -> None:
        """Keep what a variant failed of until it is asked for, or the variant begins again."""
        if attempt < self.attempts.get(source, 0):
            return
        if failure.exits:
            lines = [text for level, text in self.recorder.tail(source) if level != "ERROR"]
            failure = failure.followed_by(last_words.printed_last(lines))
        self.failures[source] = failure

    def take_failure(self, source: str) -> Failure | None:
        """Return what was kept."""
        return self.failures.pop(source, None)

    def write(self, batch: Batch) -> None:
        """Write records; those of an attempt that was given up are passed over.

        Raises
        ------
        OSError
            If they cannot be written: none is then.
        """
        late = {s for s, origin in batch.origins.items() if not self._counts(s, origin)}
        records = [record for record in batch.records if record.source not in late]
        try:
            self.recorder.write(records, batch.sender, batch.number)
        except OSError as error:
            if self._refused is None:
                reason = _disk.reason(error, self.recorder.root, host_name())
                self._refused = (reason, time.monotonic())
            raise
        self._refused = None

    def note(self, source: str, origin: Origin, text: str) -> None:
        """Write what the driver found out about a variant into its log."""
        self.recorder.open(source, origin.folder, origin.title)
        self.recorder.write([Record(source, "line", "ERROR", text, None, time.time())])

    def look(self) -> Look:
        """Return what became of the output since the last call."""
        refusal, since = self._refused or ("", time.monotonic())
        lines = self.recorder.take_lines()
        return Look(self.process, lines, refusal, time.monotonic() - since)

    def close(self) -> None:
        """See :meth:`Recorder.close`."""
        self.recorder.close()
