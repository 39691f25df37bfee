"""Writing to a disk that may be full for a while, and explaining why one refuses."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
#: How long to wait for space, in seconds: this variable, or the default.
DEADLINE = "FLAMBE_DISK_DEADLINE"
SECONDS = 300.0
PAUSE = 1.0  # seconds between two tries
FULL = (errno.ENOSPC, errno.EDQUOT)


def deadline() -> float:
    """Return how many seconds to wait for space."""
    try:
        return float(os.environ.get(DEADLINE, SECONDS))
    except ValueError:
        return SECONDS


def is_full(error: BaseException | None) -> bool:
    """Whether a disk has no room, no inodes, or its user no quota left."""
    return isinstance(error, OSError) and error.errno in FULL


def reason(error: OSError, path: str | os.PathLike[str], host: str = "") -> str:
    """Return why a disk refused something, with what helps.

    Parameters
    ----------
    error
        What was refused.
    path
        What could not be written; it need not exist.
    host
        Whose disk it is, if it is not plain.
    """
    existing = Path(path).absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    where = f"{host}: " if host else ""
    if error.errno == errno.EROFS:
        return f"{where}{path} is on a read-only disk ({mount_of(existing)}); remount it writable"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}{path} cannot be written by this user: permission denied"
    if error.errno not in FULL:
        return f"{where}{path} cannot be written: {error.strerror or error}"
    if error.errno == errno.EDQUOT:
        return f"{where}the quota of this user on {mount_of(existing)} is used up, for {path}"
    try:
        disk = os.statvfs(existing)
    except OSError:
        return f"{where}the disk of {path} is full; free some space"
    if disk.f_files and not disk.f_favail:
        return f"{where}no inodes left on {mount_of(existing)}, for {path}; remove some files"
    free, size = (amount(blocks * disk.f_frsize) for blocks in (disk.f_bavail, disk.f_blocks))
    return (
        f"{where}{mount_of(existing)} is full ({free} of {size} free), and {path} is on it; "
        "free some space"
    )


def mount_of(path: Path) -> Path:
    """Return where the disk of a path is mounted."""
    path = path.resolve()
    while not os.path.ismount(path) and path != path.parent:
        path = path.parent
    return path


def amount(number: float) -> str:
    """Return a number of bytes as people read it: ``1.2 GiB``."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        del units[0]
    return (
        f"{number:.0f} {units[0]}"
        if number >= 10 or units[0] == "bytes"
        else (f"{number:.1f} {units[0]}")
    )


def retry_when_full(
    do: Callable[[], T],
    path: str | os.PathLike[str],
    notify: Callable[[str], None],
    host: str = "",
    seconds: float | None = None,
) -> T:
    """Do something; where its disk is full, do it again until there is room.

    Parameters
    ----------
    do
        Leaves nothing half done where it raises.
    path
        What it writes.
    notify
        Called once before the first wait, with the reason.
    host
        Whose disk it is.
    seconds
        For how long; see :func:`deadline`.

    Raises
    ------
    OSError
        If there is no space by then; at once, if the reason is another one.
    """
    patience = deadline() if seconds is None else seconds
    end: float | None = None
    while True:
        try:
            return do()
        except OSError as error:
            if not is_full(error) or patience <= 0:
                raise
            if end is None:
                end = time.monotonic() + patience
                notify(
                    f"{reason(error, path, host)}; the run waits up to {patience:.0f} s for space"
                )
            elif time.monotonic() > end:
                raise
        time.sleep(PAUSE)


class Appender:
    """Appends to a file: what is added goes there as a whole, or not at all.

    Parameters
    ----------
    path
        The file.
    lines
        Whether it is of lines: a last one that was cut off is ended first, so that the next is not
        lost with it.

    Attributes
    ----------
    path
        The file.
    size
        How long it is, without what waits to be written.
    """

    def __init__(self, path: Path, *, lines: bool = False) -> None:
        self.path = path
        self.size = 0
        self._lines = lines
        self._waiting: list[bytes] = []
        self._descriptor: int | None = None

    @property
    def waits(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        """How many bytes wait to be written."""
        return sum(map(len, self._waiting))

    def add(self, data: bytes) -> None:
        """Let data wait to be written."""
        self._waiting.append(data)

    def open(self) -> None:
        """Open the file, if it is not: see :attr:`size`.

        Raises
        ------
        OSError
            If it cannot be.
        """
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o666)
            self.size = os.fstat(self._descriptor).st_size
            cut = self._lines and self.size
            if cut and os.pread(self._descriptor, 1, self.size - 1) != b"\n":
                self._waiting.insert(0, b"\n")

    def write(self) -> None:
        """Write what waits; :meth:`keep` or :meth:`undo` says what becomes of it.

        Raises
        ------
        OSError
            If not all of it can be.
        """
        self.open()
        assert self._descriptor is not None
        rest = memoryview(b"".join(self._waiting))
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def keep(self) -> None:
        """Let what was written stay."""
        self.size += self.waiting
        self._waiting.clear()

    def undo(self) -> None:
        """Take back what was written, and what waits."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, self.size)
        self.close()

    def append(self, data: bytes) -> None:
        """Write data, all of it or nothing.

        Raises
        ------
        OSError
            If it cannot be.
        """
        self.add(data)
        try:
            self.write()
        except OSError:
            self.undo()
            raise
        self.keep()

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        self._waiting.clear()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
