"""Files of JSON lines, read while they are written."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from flambe._files import regular_opener

LONGEST_LINE = 16 << 20  # bytes: a longer one is broken
DEEPEST = 100  # lists and objects within one another: what is deeper is broken
_decode = json.JSONDecoder().decode  # json.loads looks at its options for each line
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def open_regular(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> BinaryIO:
    """Open a regular file to read it; others make a reader wait (FIFO) or never end (device).

    Parameters
    ----------
    path
        The file. A link is followed unless a folder is given.
    dir_fd
        An open folder: then the path is a name in it, and a link is not followed.

    Raises
    ------
    OSError
        If it cannot be opened, or is not a regular file.
    """
    return open(path, "rb", opener=partial(regular_opener, dir_fd=dir_fd))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a broken line is skipped."""
    try:
        stream = open_regular(path)
    except OSError:
        return
    with stream:
        yield from objects(line.decode("utf-8", "replace") for line in bounded_lines(stream))


def objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of JSON lines; a broken line is skipped."""
    for line in lines:
        if (value := _object(line)) is not None:
            yield value


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream; of one that is too long, pieces, which are not JSON."""
    return iter(partial(stream.readline, LONGEST_LINE), b"")


def parse_json(text: str) -> object:
    r"""Return what JSON says, in a shape that can be written again.

    Halves of UTF-16 pairs (``"\ud800"``) are not characters: they are replaced.

    Raises
    ------
    ValueError
        If it is not JSON, or nested more deeply than templates and encoders take.
    RecursionError
        If it is nested so deeply that it cannot be read.
    """
    value = _decode(text)
    if len(text) > DEEPEST and text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise ValueError(f"nested more than {DEEPEST} deep")
    return _encodable(value) if "\\u" in text and _SURROGATE.search(text) else value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return False
        level = [
            child
            for item in nested
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return True


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_encodable(child) for child in value]
    return value


def _object(line: str) -> dict[str, object] | None:
    try:
        value = parse_json(line)
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
        """Yield the objects of the whole lines that are new; a broken one is skipped."""
        try:
            stream = open_regular(self.path)
        except OSError:
            self._restart(0)
            return
        with stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != self._file or status.st_size < self._offset:
                self._restart(status.st_ino)
            stream.seek(self._offset)
            for line in bounded_lines(stream):
                if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
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
