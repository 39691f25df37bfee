"""Files of JSON lines, read while they are written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a broken line is passed over."""
    try:
        stream = open(path, encoding="utf-8", errors="replace")
    except OSError:
        return
    with stream:
        yield from objects(stream)


def objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON lines; a broken line is passed over."""
    for line in lines:
        if (value := _object(line)) is not None:
            yield value


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Tail:
    """Reads what is appended to a file of JSON lines, each line once.

    Attributes
    ----------
    generation
        Counts how often the file was replaced or cut: what was read before is not true any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._offset = 0
        self._file = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the objects of the whole lines that are new; a broken one is passed over."""
        try:
            stream = open(self.path, "rb")
        except OSError:
            self._restart(0)
            return
        with stream:
            found = os.fstat(stream.fileno())
            if found.st_ino != self._file or found.st_size < self._offset:
                self._restart(found.st_ino)
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._offset += len(line)
                if (value := _object(line.decode("utf-8", "replace"))) is not None:
                    yield value

    def _restart(self, file: int) -> None:
        if self._offset:
            self.generation += 1
        self._offset, self._file = 0, file


def end_last_line(path: Path) -> None:
    """End a last line that was cut off, so that the next one is not lost with it."""
    with contextlib.suppress(OSError), open(path, "rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")
