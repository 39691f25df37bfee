"""Logs, read piece by piece around a position: they may have any size.

A position in a log is a number of bytes. Reading backwards and searching stop after a while, and
return where to continue: a page shows the lines so far, and sends another request.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from flambe.report.files import RunPath
from flambe.report.payloads import LogLine, LogPage, LogTail

CHUNK = 1 << 18
LONGEST = 20_000  # characters of a line that are shown
MOST_LINES = 500
SEARCH_SECONDS = 1.0  # after which a search returns what it has

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
class LineFilter:
    """Selects lines of a log.

    Attributes
    ----------
    search
        Text that they contain, ignoring case.
    level
        The lowest level; what components print is of the level INFO.
    stage
        For the log of the run: the stage that they come from.
    sources
        Whether lines name their source, as in the log of the run.
    """

    search: str = ""
    level: str = ""
    stage: str = ""
    sources: bool = False

    def line_test(self) -> Callable[[bytes], bool]:
        """Return a quick test of a whole line."""
        search, text = self.search.encode().lower(), self.search.lower()
        least = LEVELS.get(self.level, 0)
        stage = self.stage.encode()

        def matches(line: bytes) -> bool:
            if text.isascii():
                if search and search not in line.lower():
                    return False
            elif text not in line.decode("utf-8", "replace").lower():
                return False
            if not (least or stage):
                return True
            match = _LINE.match(line)
            if match is None:
                return False
            if least and LEVELS.get(match[2].decode("latin-1"), 0) < least:
                return False
            rest = line[match.end() :]
            return not stage or rest.startswith((stage + b" ", stage + b" |"))

        return matches

    def block_test(self) -> Callable[[bytes], bool]:
        """Return a test of many lines at once: whether one of them may match."""
        search = self.search.encode().lower() if self.search.isascii() else b""
        least = LEVELS.get(self.level, 0)
        levels = [name.encode() for name, level in LEVELS.items() if level >= least > 0]
        stage = self.stage.encode()

        def may_match(block: bytes) -> bool:
            if search and search not in block.lower():
                return False
            return stage in block and (not levels or any(level in block for level in levels))

        return may_match

    def parse(self, at: int, line: bytes) -> LogLine:
        """Return a line in its parts."""
        match = _LINE.match(line)
        if match is None:
            return {"at": at, "time": "", "level": "", "source": "", "text": _text(line)}
        rest, source = line[match.end() :], b""
        if self.sources:
            before, bar, after = rest.partition(b" | ")
            rest, source = (after, before) if bar else (rest, b"")
        return {
            "at": at,
            "time": match[1].decode(),
            "level": match[2].decode("latin-1"),
            "source": _text(source),
            "text": _text(rest),
        }


def _text(line: bytes) -> str:
    return line[: 4 * LONGEST].decode("utf-8", "replace").rstrip("\r\n")[:LONGEST]


def before(
    path: RunPath, end: int | None, line_filter: LineFilter, most: int = MOST_LINES
) -> LogPage:
    """Return the last lines before a position (by default, the end).

    Returns
    -------
    LogPage
        ``lines``; ``start``: the position before which to continue; ``end``: the position after
        which new lines will appear, which is the start of an unfinished last line; ``more``:
        whether there is anything before.
    """
    with _open(path) as (stream, size):
        return _before(stream, size, end, line_filter, most)


def _before(
    stream: BinaryIO, size: int, end: int | None, line_filter: LineFilter, most: int
) -> LogPage:
    at = new_lines_at = size if end is None else min(end, size)
    lines: list[LogLine] = []
    matches, deadline = line_filter.line_test(), time.monotonic() + SEARCH_SECONDS
    if at:
        stream.seek(at - 1)
        whole = stream.read(1) == b"\n"
        for start, line in _backwards(stream, at - whole, line_filter.block_test()):
            if at == size and not whole and line is not None:
                new_lines_at = start
            if line is not None and matches(line):
                lines.append(line_filter.parse(start, line))
            at = start
            if len(lines) >= most or time.monotonic() > deadline:
                break
    lines.reverse()
    return {"lines": lines, "start": at, "end": new_lines_at, "size": size, "more": at > 0}


def _backwards(
    stream: BinaryIO, end: int, may_match: Callable[[bytes], bool]
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the positions and contents of the lines before a position, the last first.

    None stands for a block of lines of which none matches.
    """
    rest, at, has_last = b"", end, False
    while at > 0:
        size = min(CHUNK, at)
        at -= size
        stream.seek(at)
        block = stream.read(size) + rest
        # The last line is always yielded, as it may be unfinished.
        if has_last and not may_match(block):
            first, newline, _ = block.partition(b"\n")
            if newline:
                rest = first
                yield at + len(first) + 1, None
                continue
        first, *others = block.split(b"\n")
        position = at + len(first) + sum(len(part) + 1 for part in others) + 1
        for part in reversed(others):
            position -= len(part) + 1
            has_last = True
            yield position, part
        rest = first
        if at and len(rest) > 4 * CHUNK:  # a line without an end
            has_last = True
            yield at, rest[:CHUNK]
            rest = b""
    yield 0, rest


def after(path: RunPath, start: int, line_filter: LineFilter, most: int = MOST_LINES) -> LogTail:
    """Return the whole lines after a position, and where to continue.

    If there is much more than can be shown, the lines in between are omitted: ``skipped`` bytes.
    """
    with _open(path) as (stream, size):
        if start > size:  # the log was started again
            return {"lines": [], "at": 0, "size": size, "restarted": True}
        if start == size:
            return {"lines": [], "at": start, "size": size}
        return _after(stream, size, start, line_filter, most)


def _after(stream: BinaryIO, size: int, start: int, line_filter: LineFilter, most: int) -> LogTail:
    matches = line_filter.line_test()
    lines: list[LogLine] = []
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
            lines.append(line_filter.parse(at, line))
        at += len(line)
    tail: LogTail = {"lines": lines[-most:], "at": at, "size": size}
    if skipped or len(lines) > most:
        tail["skipped"] = skipped
    return tail


@contextlib.contextmanager
def _open(path: RunPath) -> Iterator[tuple[BinaryIO, int]]:
    """Open a log and yield its size; a missing log is empty."""
    try:
        stream: BinaryIO = path.open()
    except OSError:
        stream = io.BytesIO()
    with stream:
        yield stream, stream.seek(0, os.SEEK_END)
