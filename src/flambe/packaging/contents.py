"""What a file or a folder holds, as a hash: computed once, and again only where it changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flambe.logging.console import home_folder

LENGTH = 16  # hexadecimal digits
CHUNK = 1 << 20
# A file that was changed so short a time ago may change again and show the same time: its hash is
# not kept. Git speaks of racily clean entries (git-scm.com/docs/racy-git).
RACY_SECONDS = 2.0
MUCH = 1 << 30  # bytes
_TABLE = "CREATE TABLE IF NOT EXISTS hashes (file TEXT PRIMARY KEY, status TEXT, hash TEXT)"

Note = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


def content_hash(path: str | os.PathLike[str], note: Note = silent) -> str:
    """Return the hash of the content of a file, or of all files in a folder and their names.

    Hashes are kept in ``~/.flambe/cache``, by the device and the inode of a file, its size and the
    times of its last changes.

    Parameters
    ----------
    path
        A file or a folder; links are followed to files.
    note
        Told when more is read than takes a moment.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with contextlib.closing(_Kept(lambda: note(f"reading {path}, to know its content"))) as kept:
        if not os.path.isdir(path):
            return kept.hash(Path(path))[:LENGTH]
        digest = hashlib.sha256()
        for name, file in _files(Path(path)):
            digest.update(f"{name}\0{kept.hash(file) if file else ''}\0".encode(*_NAMES))
        return digest.hexdigest()[:LENGTH]


def listing_hash(path: str | os.PathLike[str]) -> str:
    """Return the hash of the names and sizes of the files in a folder, or of the size of a file.

    Of what is too large to be read for it: a change that keeps the size of every file is not seen.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if not os.path.isdir(path):
        return hashlib.sha256(str(os.stat(path).st_size).encode()).hexdigest()[:LENGTH]
    digest = hashlib.sha256()
    for name, file in _files(Path(path)):
        digest.update(f"{name}\0{file.stat().st_size if file else ''}\0".encode(*_NAMES))
    return digest.hexdigest()[:LENGTH]


_NAMES = ("utf-8", "surrogateescape")


def _files(folder: Path) -> Iterator[tuple[str, Path | None]]:
    """Yield the name and the path of what is in a folder, in order; no path for what is no file."""
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            yield path.relative_to(folder).as_posix(), path if path.is_file() else None


def _raise(error: OSError) -> None:
    raise error


class _Kept:
    """The hashes that were computed before; without a database that can be used, there are none."""

    def __init__(self, on_much: Callable[[], None]) -> None:
        self._on_much, self._read = on_much, 0
        self._database: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.Error, OSError):
            file = home_folder("cache") / "contents.sqlite"
            self._database = sqlite3.connect(file, timeout=1)
            self._database.execute(_TABLE)

    def hash(self, file: Path) -> str:
        """Return the hash of a file."""
        with open(file, "rb") as stream:
            before = os.fstat(stream.fileno())
            name, status = f"{before.st_dev}:{before.st_ino}", _status(before)
            if known := self._find(name, status):
                return known
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                self._read += len(chunk)
                if self._read - len(chunk) < MUCH <= self._read:
                    self._on_much()
            after = os.fstat(stream.fileno())
        settled = time.time() - max(after.st_mtime, after.st_ctime) > RACY_SECONDS
        if settled and _status(after) == status and stat.S_ISREG(after.st_mode):
            self._keep(name, status, digest.hexdigest())
        return digest.hexdigest()

    def _find(self, name: str, status: str) -> str:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                query = "SELECT hash FROM hashes WHERE file = ? AND status = ?"
                found = self._database.execute(query, (name, status)).fetchone()
                return str(found[0]) if found else ""
        return ""

    def _keep(self, name: str, status: str, value: str) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute(
                    "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (name, status, value)
                )

    def close(self) -> None:
        """Write what is new."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.commit()
            self._database.close()


def _status(known: os.stat_result) -> str:
    return f"{known.st_size}:{known.st_mtime_ns}:{known.st_ctime_ns}"
