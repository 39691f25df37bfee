"""Logs, read piece by piece from where a page is: they may be of any size.

A place in a log is a number of bytes. Reading backwards and searching give up after a while, and
say from where to go on: a page shows what there is, and asks again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from flambe.report.files import RunPath

CHUNK = 1 << 18
LONGEST = 20_000  # characters of a line that are shown
MOST_LINES = 500
PATIENCE = 1.0  # seconds that a search goes on before it says how far it is

LEVELS = {
    "DEBUG": 10,
    "stdout": 20,
    "stderr": 20,
    "INFO": 20,
    "WARNING": 30,
    "ERROR": 40,
    "CRITICAL": 50,
}
_LINE = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\S+) +")


@dataclass(frozen=True)
class Line:
    """A line of a log: where it begins, and what it says."""

    at: int
    time: str
    level: str
    source: str
    text: str


@dataclass(frozen=True)
class Wanted:
    """Which lines are wanted.

    Attributes
    ----------
    search
        Text that they hold, in any case.
    level
        The lowest level; what components print is of the level INFO.
    stage
        Of the log of the run: the stage that they come from.
    sources
        Whether lines name where they come from, as in the log of the run.
    """

    search: str = ""
    level: str = ""
    stage: str = ""
    sources: bool = False

    def filter(self) -> Callable[[bytes], bool]:
        """Return a quick test of a whole line."""
        search, text = self.search.encode().lower(), self.search.lower()
        least = LEVELS.get(self.level, 0)
        stage = self.stage.encode()

        def wanted(line: bytes) -> bool:
            if text.isascii():
                if search and search not in line.lower():
                    return False
            elif text not in line.decode("utf-8", "replace").lower():
                return False
            if not (least or stage):
                return True
            found = _LINE.match(line)
            if found is None:
                return False
            if least and LEVELS.get(found[2].decode("latin-1"), 0) < least:
                return False
            rest = line[found.end() :]
            return not stage or rest.startswith((stage + b" ", stage + b" |"))

        return wanted

    def possible(self) -> Callable[[bytes], bool]:
        """Return a test of many lines at once: whether one of them may be wanted."""
        search = self.search.encode().lower() if self.search.isascii() else b""
        least = LEVELS.get(self.level, 0)
        levels = [name.encode() for name, level in LEVELS.items() if level >= least > 0]
        stage = self.stage.encode()

        def possible(block: bytes) -> bool:
            if search and search not in block.lower():
                return False
            return stage in block and (not levels or any(level in block for level in levels))

        return possible

    def parsed(self, at: int, line: bytes) -> Line:
        """Return a line as pages show it."""
        found = _LINE.match(line)
        if found is None:
            return Line(at, "", "", "", _text(line))
        rest, source = line[found.end() :], b""
        if self.sources:
            before, bar, after = rest.partition(b" | ")
            rest, source = (after, before) if bar else (rest, b"")
        return Line(at, found[1].decode(), found[2].decode("latin-1"), _text(source), _text(rest))


def _text(line: bytes) -> str:
    return line[: 4 * LONGEST].decode("utf-8", "replace").rstrip("\r\n")[:LONGEST]


def before(
    path: RunPath, end: int | None, wanted: Wanted, most: int = MOST_LINES
) -> dict[str, Any]:
    """Return the last lines before a place (by default, the end).

    Returns
    -------
    dict
        ``lines``; ``start``: the place before which to go on; ``end``: the place after which lines
        are to come, which is where a last line begins that has no end yet; ``more``: whether there
        is anything before.
    """
    with _opened(path) as (stream, size):
        return _before(stream, size, end, wanted, most)


def _before(
    stream: BinaryIO, size: int, end: int | None, wanted: Wanted, most: int
) -> dict[str, Any]:
    at = size if end is None else min(end, size)
    result: dict[str, Any] = {"end": at, "size": size}
    lines: list[Line] = []
    matches, deadline = wanted.filter(), time.monotonic() + PATIENCE
    if at:
        stream.seek(at - 1)
        whole = stream.read(1) == b"\n"
        for start, line in _backwards(stream, at - whole, wanted.possible()):
            if at == size and not whole and line is not None:
                result["end"] = start
            if line is not None and matches(line):
                lines.append(wanted.parsed(start, line))
            at = start
            if len(lines) >= most or time.monotonic() > deadline:
                break
    lines.reverse()
    return {**result, "lines": [asdict(line) for line in lines], "start": at, "more": at > 0}


def _backwards(
    stream: BinaryIO, end: int, possible: Callable[[bytes], bool]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines before the end of one, and where they begin, the last first.

    None stands for many lines of which none is wanted.
    """
    rest, at = b"", end
    while at > 0:
        size = min(CHUNK, at)
        at -= size
        stream.seek(at)
        block = stream.read(size) + rest
        # The last line is always looked at: it may have no end yet.
        if at + size < end and not possible(block):
            first, newline, _ = block.partition(b"\n")
            if newline:
                rest = first
                yield at + len(first) + 1, None
                continue
        first, *others = block.split(b"\n")
        place = at + len(first) + sum(len(part) + 1 for part in others) + 1
        for part in reversed(others):
            place -= len(part) + 1
            yield place, part
        rest = first
        if at and len(rest) > 4 * CHUNK:  # a line without an end
            yield at, rest[:CHUNK]
            rest = b""
    yield 0, rest


def after(path: RunPath, start: int, wanted: Wanted, most: int = MOST_LINES) -> dict[str, Any]:
    """Return the whole lines after a place, and where to go on.

    Where there is much more than can be shown, what lies between is left out: ``skipped`` bytes.
    """
    with _opened(path) as (stream, size):
        if start > size:  # it was started anew
            return {"lines": [], "at": 0, "size": size, "restarted": True}
        if start == size:
            return {"lines": [], "at": start, "size": size}
        return _after(stream, size, start, wanted, most)


def _after(stream: BinaryIO, size: int, start: int, wanted: Wanted, most: int) -> dict[str, Any]:
    matches = wanted.filter()
    lines: list[Line] = []
    at, skipped = start, 0
    if size - start > 4 * CHUNK:
        skipped = size - start - 2 * CHUNK
        at = start + skipped
    stream.seek(at)
    if skipped:
        at += len(stream.readline(size - at))
    while at < size:
        line = stream.readline(4 * CHUNK)
        if not line.endswith(b"\n") and len(line) < 4 * CHUNK:
            break
        if matches(line):
            lines.append(wanted.parsed(at, line))
        at += len(line)
    result = {"lines": [asdict(line) for line in lines[-most:]], "at": at, "size": size}
    return {**result, "skipped": skipped} if skipped or len(lines) > most else result


@contextlib.contextmanager
def _opened(path: RunPath) -> Iterator[tuple[BinaryIO, int]]:
    """Open a log, and give its size; where there is none, it is empty."""
    try:
        stream: BinaryIO = path.open()
    except OSError:
        stream = io.BytesIO()
    with stream:
        yield stream, stream.seek(0, os.SEEK_END)
