"""The only writer of a run's logs, metrics and TensorBoard events, per variant."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flambe._disk import Appender, retry_when_full
from flambe.logging import redact
from flambe.logging.capture import PROGRESS
from flambe.logging.event_file import event_path, summary_writer
from flambe.logging.events import Record
from flambe.logging.ledger import Ledger
from flambe.progress import METRICS, TENSORBOARD, VARIANT_CONFIG, VARIANT_LOG

if TYPE_CHECKING:  # loaded at the first event
    from tensorboardX import SummaryWriter

_log = logging.getLogger(__name__)
# A line of a variant's log: when, its level, its text.
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\S+) +(.*)")

# Lines kept for the console when it is slower than the components.
PENDING_LINES = 20_000
TAIL_LINES, TAIL_WIDTH = 200, 1_000  # of each variant, that are remembered
LOAD_PERIOD = 4.0  # seconds between two lines about a host


class Recorder:
    """Writes records into the folders of their sources: those of one call all, or none.

    Parameters
    ----------
    root
        The folder of the run.
    identity
        Of the run, where another process continues to write for it if this one is killed.
    """

    def __init__(self, root: str | Path, identity: str = "") -> None:
        self.root = Path(root)
        self._sources: dict[str, _Source] = {}
        self._load_times: dict[str, float] = {}
        self._lines: collections.deque[tuple[str, str, str]] = collections.deque(
            maxlen=PENDING_LINES
        )
        # Held again by the same thread where writing a figure makes a library log something.
        self._lock = threading.RLock()
        self.root.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.root, identity) if identity else None
        #: Whether it continues what a process wrote that was killed.
        self.recovered = self.ledger is not None and self.ledger.recover()
        self._advised = set(self.ledger.advised) if self.ledger is not None else set()
        lines = not self.recovered  # else what is there is whole
        self._run_log = Appender(self.root / "run.log", lines=lines)
        self._loads = Appender(self.root / "hosts.jsonl", lines=lines)
        self._changes = _Changes()
        with contextlib.suppress(OSError):  # the disk is full for now
            self._run_log.open()

    def open(self, source: str, folder: str, name: str) -> None:
        """Set where a source's files go, below the root, and its name in logs."""
        with self._lock:
            if source not in self._sources:
                self._sources[source] = _Source(self.root / folder, name, self.recovered)

    def write(self, records: Iterable[Record], sender: str = "", number: int = 0) -> None:
        """Write records.

        Parameters
        ----------
        records
            What is written.
        sender, number
            Who sends it, and which of its batches this is, from 1 on: one that was written is
            passed over.

        Raises
        ------
        OSError
            If not all of them can be written: none is then.
        """
        with self._lock:
            if self.ledger is not None and number and self.ledger.taken(sender, number):
                return
            changes = self._changes = _Changes()
            try:
                for record in records:
                    self._write(record)
                self._commit(sender, number)
            except BaseException:
                self._undo()
                raise
            self._advised |= changes.advised
            self._load_times |= changes.load_times
            self._lines += changes.lines
            for source, line in changes.tails:
                source.tail.append(line)
            for source in changes.ended:
                self._close(source)

    def _undo(self) -> None:
        for file in (self._run_log, self._loads):
            file.undo()
        for source in self._sources.values():
            source.undo()

    def _files(self) -> list[Appender]:
        files = [file for source in self._sources.values() for file in source.files.values()]
        return [self._run_log, self._loads, *files]

    def _commit(self, sender: str, number: int) -> None:
        """Write what waits, and note that it is written."""
        files, ledger = [file for file in self._files() if file.waits], self.ledger
        for file in files:
            file.open()
        if ledger is None:
            for file in files:
                file.write()
        elif files or number:
            sizes = {self._name(file): file.size for file in files}
            if not sizes.keys() <= ledger.sizes.keys():
                ledger.sizes |= sizes
                ledger.write()
            for file in files:
                file.write()
            earlier = dict(ledger.senders)
            if number:
                ledger.acknowledge(sender, number)
            ledger.sizes |= {self._name(f): f.size + f.waiting for f in files}
            ledger.advised = sorted(self._advised | self._changes.advised)
            try:
                ledger.write()
            except OSError:
                ledger.senders, ledger.sizes = earlier, ledger.sizes | sizes
                raise
        for file in files:
            file.keep()

    def _name(self, file: Appender) -> str:
        return str(file.path.relative_to(self.root))

    def _close(self, source: _Source) -> None:
        if self.ledger is not None:
            for file in source.files.values():
                self.ledger.sizes.pop(self._name(file), None)
        source.close()

    def _write(self, record: Record) -> None:
        source, changes = self._sources.get(record.source), self._changes
        if record.kind == "end":
            if source:
                changes.ended.append(source)
        elif record.kind == "advice":
            if record.tag not in self._advised | changes.advised:
                changes.advised.add(record.tag)
                for line in str(record.value).splitlines():
                    self._write(replace(record, kind="line", tag="WARNING", value=line))
        elif record.kind == "line":
            text = redact.hide(str(record.value))
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
            name = source.name if source else ""
            line = f"{stamp} {record.tag:<7} {name}{' | ' if name else ''}{text}\n"
            self._run_log.add(_encoded(line))
            changes.lines.append((record.source, record.tag, text))
            if source:
                changes.tails.append((source, (record.tag, text[:TAIL_WIDTH])))
                source.line(stamp, record.tag, text)
        elif record.kind == "whole":
            if source:
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
                source.line(stamp, record.tag, redact.hide(str(record.value)))
        elif record.kind == "progress":
            changes.lines.append((record.source, PROGRESS, redact.hide(str(record.value))))
        elif record.kind == "load":
            self._load(record)
        elif source:
            source.event(_masked(record))

    def _load(self, record: Record) -> None:
        # Every worker of a host reports the same.
        if (
            record.time - (self._load_times | self._changes.load_times).get(record.tag, 0.0)
            > LOAD_PERIOD
        ):
            self._changes.load_times[record.tag] = record.time
            line = {"host": record.tag, "time": round(record.time, 1), **record.value}
            self._loads.add(_encoded(json.dumps(line) + "\n"))

    def tail(self, source: str) -> list[tuple[str, str]]:
        """Return the last lines of a source: ``(level, text)``."""
        with self._lock:
            files = self._sources.get(source)
            return list(files.tail) if files else []

    def take_lines(self) -> list[tuple[str, str, str]]:
        """Return the lines since the last call: ``(source, level, text)``."""
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
        return lines

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for source in self._sources.values():
                source.close()
            self._run_log.close()
            self._loads.close()
            if self.ledger is not None:
                self.ledger.remove()


@dataclass
class _Changes:
    """What is different when a batch is written: nothing of it counts before."""

    advised: set[str] = field(default_factory=set)
    load_times: dict[str, float] = field(default_factory=dict)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    tails: list[tuple[_Source, tuple[str, str]]] = field(default_factory=list)
    ended: list[_Source] = field(default_factory=list)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _masked(record: Record) -> Record:
    """Return a record without hidden values: what figures are called may hold one too."""
    value = redact.hide(record.value) if isinstance(record.value, str) else record.value
    tag = redact.hide(record.tag)
    if value is record.value and tag is record.tag:
        return record
    return replace(record, tag=tag, value=value)


class _Source:
    """The files of one variant, opened at first use."""

    def __init__(self, folder: Path, name: str, recovered: bool) -> None:
        self.folder = folder
        self.name = name
        self.files: dict[str, Appender] = {}
        self._events: SummaryWriter | None = None
        self._recovered = recovered
        self.tail: collections.deque[tuple[str, str]] = collections.deque(maxlen=TAIL_LINES)
        if recovered:
            self.tail += _last_lines(folder / VARIANT_LOG)

    def _file(self, name: str) -> Appender:
        if name not in self.files:
            self.files[name] = Appender(self.folder / name, lines=not self._recovered)
        return self.files[name]

    def line(self, stamp: str, level: str, text: str) -> None:
        self._file(VARIANT_LOG).add(_encoded(f"{stamp} {level:<7} {text}\n"))

    def event(self, record: Record) -> None:
        if record.kind == "config":
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / VARIANT_CONFIG).write_text(record.value, encoding="utf-8")
            return
        if record.kind in ("scalar", "text"):
            value = record.value
            if isinstance(value, float) and not math.isfinite(value):
                value = str(value)
            entry = {"time": record.time, "step": record.step, "tag": record.tag, "value": value}
            self._file(METRICS).add(_encoded(json.dumps(entry) + "\n"))
        try:
            self._to_tensorboard(record)
        except Exception as error:  # what one figure holds must not cost the others
            self.note(record, f"{record.tag!r} cannot be shown by TensorBoard: {error}")

    def undo(self) -> None:
        """Take back what was written last, and what waits."""
        for name, file in list(self.files.items()):
            if file.waits:
                file.undo()
                del self.files[name]
        if TENSORBOARD not in self.files:
            self._events = None  # its file begins with a line of its own

    def note(self, record: Record, text: str) -> None:
        """Write a line of flambe's own."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
        self.line(stamp, "WARNING", redact.hide(text))

    def _to_tensorboard(self, record: Record) -> None:
        if self._events is None:
            file = Appender(event_path(self.folder / TENSORBOARD))
            self._events = summary_writer(file)
            self.files[TENSORBOARD] = file
        writer, tag, step, when = self._events, record.tag, record.step, record.time
        if record.kind == "scalar":
            writer.add_scalar(tag, record.value, step, walltime=when)
        elif record.kind == "text":
            writer.add_text(tag, record.value, step, walltime=when)
        elif record.kind == "histogram":
            writer.add_histogram(tag, record.value, step, walltime=when)
        elif record.kind == "image":
            writer.add_image(tag, record.value, step, walltime=when)
        elif record.kind == "pr_curve":
            labels, predictions = record.value
            writer.add_pr_curve(tag, labels, predictions, step, walltime=when)

    def close(self) -> None:
        self.tail.clear()
        for file in self.files.values():
            file.close()
        self.files = {}
        self._events = None


def _last_lines(path: Path) -> list[tuple[str, str]]:
    """Return the last lines of a variant's log: ``(level, text)``."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_LINES * TAIL_WIDTH))
            lines = stream.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return []
    matches = [_LINE.match(line) for line in lines]
    return [(match[1], match[2][:TAIL_WIDTH]) for match in matches if match is not None]


class DirectChannel:
    """Takes records to a recorder in this process."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def send(self, record: Record) -> None:
        """Write it; where the disk is full, when there is room."""
        retry_when_full(lambda: self.recorder.write([record]), self.recorder.root, _log.warning)

    def flush(self) -> None:
        """Nothing waits."""
