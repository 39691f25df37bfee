"""The one writer of what a run has to say: logs, metrics and TensorBoard events, per variant."""

from __future__ import annotations

import collections
import json
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from flambe.logging import redact
from flambe.logging.capture import PROGRESS
from flambe.logging.events import Record
from flambe.progress import METRICS, TENSORBOARD, VARIANT_CONFIG, VARIANT_LOG, end_last_line

# Lines kept for the console when it is slower than the components.
PENDING_LINES = 20_000
TAIL_LINES, TAIL_WIDTH = 200, 1_000  # of each variant, that are remembered
LOAD_PERIOD = 4.0  # seconds between two lines about a host


class Recorder:
    """Writes records into the folders of their sources, as they come.

    Parameters
    ----------
    root
        The folder of the run.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._sources: dict[str, _Source] = {}
        self._told: dict[str, float] = {}
        self._advised: set[str] = set()
        self._lines: collections.deque[tuple[str, str, str]] = collections.deque(
            maxlen=PENDING_LINES
        )
        # Held again by the same thread where writing a figure makes a library log something.
        self._lock = threading.RLock()
        self.root.mkdir(parents=True, exist_ok=True)
        end_last_line(self.root / "run.log")
        self._run_log = open(
            self.root / "run.log", "a", encoding="utf-8", errors="backslashreplace", buffering=1
        )

    def open(self, source: str, folder: str, name: str) -> None:
        """Say where a source's files go, below the root, and what people call it."""
        with self._lock:
            if source not in self._sources:
                self._sources[source] = _Source(self.root / folder, name)

    def write(self, records: Iterable[Record]) -> None:
        """Write records."""
        with self._lock:
            for record in records:
                self._write(record)
            for source in self._sources.values():
                source.flush()

    def _write(self, record: Record) -> None:
        source = self._sources.get(record.source)
        if record.kind == "end":
            if source:
                source.close()
        elif record.kind == "advice":
            if record.tag not in self._advised:
                self._advised.add(record.tag)
                for line in str(record.value).splitlines():
                    self._write(replace(record, kind="line", tag="WARNING", value=line))
        elif record.kind == "line":
            text = redact.hide(str(record.value))
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
            name = source.name if source else ""
            self._run_log.write(f"{stamp} {record.tag:<7} {name}{' | ' if name else ''}{text}\n")
            self._lines.append((record.source, record.tag, text))
            if source:
                source.tail.append((record.tag, text[:TAIL_WIDTH]))
                source.line(stamp, record.tag, text)
        elif record.kind == "whole":
            if source:
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
                source.line(stamp, record.tag, redact.hide(str(record.value)))
        elif record.kind == "progress":
            self._lines.append((record.source, PROGRESS, redact.hide(str(record.value))))
        elif record.kind == "load":
            self._load(record)
        elif source:
            source.event(_masked(record))

    def _load(self, record: Record) -> None:
        # Every worker of a host tells the same.
        if record.time - self._told.get(record.tag, 0.0) > LOAD_PERIOD:
            self._told[record.tag] = record.time
            line = {"host": record.tag, "time": round(record.time, 1), **record.value}
            with open(self.root / "hosts.jsonl", "a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def tail(self, source: str) -> list[tuple[str, str]]:
        """Return the last lines of a source: ``(level, text)``."""
        with self._lock:
            known = self._sources.get(source)
            return list(known.tail) if known else []

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


def _masked(record: Record) -> Record:
    """Return a record without hidden values: what figures are called may hold one too."""
    value = redact.hide(record.value) if isinstance(record.value, str) else record.value
    tag = redact.hide(record.tag)
    if value is record.value and tag is record.tag:
        return record
    return replace(record, tag=tag, value=value)


class _Source:
    """The files of one variant, opened at first use."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._files: dict[str, IO[str]] = {}
        self._events: Any = None
        self._dirty = False
        self.tail: collections.deque[tuple[str, str]] = collections.deque(maxlen=TAIL_LINES)

    def _file(self, name: str) -> IO[str]:
        if name not in self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            end_last_line(self.folder / name)
            self._files[name] = open(
                self.folder / name, "a", encoding="utf-8", errors="backslashreplace"
            )
        self._dirty = True
        return self._files[name]

    def line(self, stamp: str, level: str, text: str) -> None:
        self._file(VARIANT_LOG).write(f"{stamp} {level:<7} {text}\n")

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
            self._file(METRICS).write(json.dumps(entry) + "\n")
        try:
            self._to_tensorboard(record)
        except Exception as error:  # what one figure holds must not cost the others
            self.note(record, f"{record.tag!r} cannot be shown by TensorBoard: {error}")

    def note(self, record: Record, text: str) -> None:
        """Write a line of flambe's own."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.time))
        self.line(stamp, "WARNING", redact.hide(text))

    def _to_tensorboard(self, record: Record) -> None:
        if self._events is None:
            # tensorboardX writes events without torch or TensorFlow.
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(
                str(self.folder / TENSORBOARD), flush_secs=5, write_to_disk=True
            )
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

    def flush(self) -> None:
        if self._dirty:
            for file in self._files.values():
                file.flush()
            self._dirty = False

    def close(self) -> None:
        self.tail.clear()
        for file in self._files.values():
            file.close()
        self._files = {}
        if self._events is not None:
            self._events.close()
            self._events = None


class DirectChannel:
    """Takes records to a recorder in this process."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def send(self, record: Record) -> None:
        """Write it."""
        self.recorder.write([record])

    def flush(self) -> None:
        """Nothing waits."""
