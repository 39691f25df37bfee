"""The hash of the content of a file or folder, cached until the file changes."""

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
# A file that changed this recently may change again within the resolution of its timestamp, so its
# hash is not cached. Git calls such entries racily clean (git-scm.com/docs/racy-git). Shown by
# tests/packaging/test_contents.py::test_what_was_changed_a_moment_ago_is_not_kept.
RACY_SECONDS = 2.0
LARGE = 1 << 30  # bytes
_TABLE = "CREATE TABLE IF NOT EXISTS hashes (file TEXT PRIMARY KEY, status TEXT, hash TEXT)"

Notify = Callable[[str], None]


def ignore(text: str) -> None:
    """Do nothing with a message."""


def content_hash(path: str | os.PathLike[str], notify: Notify = ignore) -> str:
    """Return the hash of the content of a file, or of all files in a folder and their names.

    Hashes are cached in ``~/.flambe/cache``, by a file's device, inode, size and times of its last
    changes.

    Parameters
    ----------
    path
        A file or a folder; links are followed to files.
    notify
        Called with a message when so much is read that it takes a while.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with contextlib.closing(_HashCache(lambda: notify(f"hashing the content of {path}"))) as cache:
        if not os.path.isdir(path):
            return cache.hash_file(Path(path))[:LENGTH]
        digest = hashlib.sha256()
        for name, file in _files(Path(path)):
            digest.update(f"{name}\0{cache.hash_file(file) if file else ''}\0".encode(*_NAMES))
        return digest.hexdigest()[:LENGTH]


def listing_hash(path: str | os.PathLike[str]) -> str:
    """Return the hash of the names and sizes of the files in a folder, or of the size of a file.

    For what is too large to read: a change that keeps the size of every file goes unnoticed.

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
    """Yield the names in a folder and their paths, in order; no path for what is not a file."""
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path.relative_to(folder).as_posix(), path if path.is_file() else None


def _raise(error: OSError) -> None:
    raise error


class _HashCache:
    """The hashes of files; it is empty where its database cannot be used."""

    def __init__(self, on_large_read: Callable[[], None]) -> None:
        self._on_large_read, self._bytes_read = on_large_read, 0
        self._database: sqlite3.Connection | None = None
        with contextlib.suppress(sqlite3.Error, OSError):
            file = home_folder("cache") / "contents.sqlite"
            self._database = sqlite3.connect(file, timeout=1)
            self._database.execute(_TABLE)

    def hash_file(self, file: Path) -> str:
        """Return the hash of a file."""
        with open(file, "rb") as stream:
            before = os.fstat(stream.fileno())
            name, status = f"{before.st_dev}:{before.st_ino}", _status(before)
            if cached := self._look_up(name, status):
                return cached
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                self._bytes_read += len(chunk)
                if self._bytes_read - len(chunk) < LARGE <= self._bytes_read:
                    self._on_large_read()
            after = os.fstat(stream.fileno())
        settled = time.time() - max(after.st_mtime, after.st_ctime) > RACY_SECONDS
        if settled and _status(after) == status and stat.S_ISREG(after.st_mode):
            self._store(name, status, digest.hexdigest())
        return digest.hexdigest()

    def _look_up(self, name: str, status: str) -> str:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                query = "SELECT hash FROM hashes WHERE file = ? AND status = ?"
                row = self._database.execute(query, (name, status)).fetchone()
                return str(row[0]) if row else ""
        return ""

    def _store(self, name: str, status: str, value: str) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute(
                    "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (name, status, value)
                )

    def close(self) -> None:
        """Write the new hashes, and close the database."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.commit()
            self._database.close()


def _status(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
