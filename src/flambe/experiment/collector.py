"""The one place of a run that every worker sends to, and asks for its task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from flambe.experiment import last_words
from flambe.experiment.failures import Failure
from flambe.experiment.task import StageTask
from flambe.logging import redact
from flambe.logging.events import Record
from flambe.logging.recorder import TAIL_WIDTH, Recorder


class Collector:
    """The actor that holds the recorder, beside the driver; every host sends to it."""

    def __init__(self, root: str, secrets: Sequence[str]) -> None:
        for value in secrets:
            redact.add(value)
        self.recorder = Recorder(root)
        self.tasks: dict[str, StageTask] = {}
        self.failures: dict[str, Failure] = {}
        #: Id → the node that a variant is on, and the folder of its last words there.
        self.wills: dict[str, tuple[str, str]] = {}

    def secrets(self) -> list[str]:
        """Return what is hidden: an error of a worker must not carry it away."""
        return sorted(redact.values())

    def set_task(self, task: StageTask) -> None:
        """Keep the task of a stage for the workers to ask for."""
        self.tasks[task.stage] = task

    def task(self, stage: str) -> StageTask:
        """Return the task of a stage."""
        return self.tasks[stage]

    def open(self, source: str, folder: str, name: str) -> None:
        """See :meth:`Recorder.open`."""
        self.failures.pop(source, None)
        self.recorder.open(source, folder, name)

    def attend(self, source: str, node: str, folder: str) -> None:
        """Keep where the last words of a variant will be, if its process dies."""
        self.wills[source] = (node, folder)

    def will(self, source: str) -> tuple[str, str] | None:
        """Return what was kept."""
        return self.wills.pop(source, None)

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
            self.write([Record(source, "line", level, line, None, now) for line in missing])
        return [text for _, text in self.recorder.tail(source)]

    def report_failure(self, source: str, failure: Failure) -> None:
        """Keep what a variant failed of until it is asked for, or the variant begins again."""
        if failure.exits:
            lines = [text for level, text in self.recorder.tail(source) if level != "ERROR"]
            failure = failure.followed_by(last_words.printed_last(lines))
        self.failures[source] = failure

    def take_failure(self, source: str) -> Failure | None:
        """Return what was kept."""
        return self.failures.pop(source, None)

    def write(self, records: list[Record]) -> None:
        """See :meth:`Recorder.write`."""
        self.recorder.write(records)

    def take_lines(self) -> list[tuple[str, str, str]]:
        """See :meth:`Recorder.take_lines`."""
        return self.recorder.take_lines()

    def close(self) -> None:
        """See :meth:`Recorder.close`."""
        self.recorder.close()
