"""The lock of an output folder: one run at a time writes there, on whatever machine it is.

It is a file beside the folder that names its holder. The kernel tells whether a holder on this
machine lives, also behind NFS (man 2 flock, "NFS details"). Where it does not, as over SSHFS, the
holder touches the file every few seconds, and a run that finds the lock of another machine, or of
another container of this one, watches it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flambe._files import is_at
from flambe.errors import ConfigError, Problem
from flambe.remote import identity

BEAT_SECONDS = 5.0
# A holder elsewhere that has not touched the file for so long is gone. Clients of NFS cache
# attributes of a file for up to 60 s, but ask again when they open it (man 5 nfs).
EXPIRY_SECONDS = 40.0
# What file systems answer that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
LARGEST = 1 << 16  # bytes


@dataclass(frozen=True)
class Holder:
    """The holder of a lock.

    Attributes
    ----------
    boot
        The identity of the machine's kernel since it was started.
    started
        When the run began, in seconds since the epoch.
    process
        Which process of which machine it is; empty where an earlier version wrote it.
    """

    pid: int = 0
    host: str = ""
    user: str = ""
    boot: str = ""
    started: float = 0.0
    process: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: bytes) -> Holder:
        """Read the content of the file.

        Raises
        ------
        ValueError, KeyError, TypeError, RecursionError
            If it does not name a holder.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise TypeError("not an object")
        process = values.get("process")
        texts = process.items() if isinstance(process, dict) else ()
        return cls(
            int(values["pid"]),
            str(values["host"]),
            str(values["user"]),
            str(values["boot"]),
            float(values["started"]),
            {str(name): str(value) for name, value in texts},
        )

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return (
            f"process {self.pid} of {self.user or 'an unknown user'} on {self.host}, since {since}"
        )


class FolderLock:
    """Held from :meth:`acquire` to :meth:`release`, or to the end of this process.

    Parameters
    ----------
    folder
        The folder that is written; it need not exist yet, and may be moved aside meanwhile.
    notify
        Called with each message for the user.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        self.folder, self.notify = folder, notify
        self.path = folder.with_name(f".{folder.name}.lock")
        self._descriptor = -1
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        ConfigError
            If another run holds it, or it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._locked()
            holder = self._read(self._descriptor)
            if holder is not None:
                self._await_end(holder)
            self._write()
        except OSError as error:
            self._close()
            raise ConfigError(
                f"cannot make the output folder {self.folder}: {error.strerror}: {error.filename}"
            ) from None
        except BaseException:
            self._close()
            raise
        self._over.clear()
        self._heart = threading.Thread(target=self._beat, name="flambe-folder-lock", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lock back."""
        self._over.set()
        if self._heart is not None:
            self._heart.join()  # it touches the descriptor, whose number another file may get
            self._heart = None
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._close()

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _locked(self) -> int:
        """Return a descriptor of the file, locked in the kernel."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._read(descriptor)
                os.close(descriptor)
                raise self._refused(holder) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(descriptor)
                    raise
            if is_at(descriptor, self.path):
                return descriptor
            os.close(descriptor)  # the holder before has removed it

    def _await_end(self, holder: Holder) -> None:
        """Return when the last holder is gone; its lock in the kernel could be taken.

        Raises
        ------
        ConfigError
            If it is not gone: the file system has no locks, or none that hosts share.
        """
        if not holder.process:
            if holder.boot != identity.boot():
                self._watch(holder)
        elif not identity.is_here(holder.process):
            self._watch(holder)
        elif holder.pid != os.getpid() and not identity.is_gone(holder.process):
            raise self._refused(holder)

    def _watch(self, holder: Holder) -> None:
        """Return when a holder on another machine gives no sign of life."""
        last, since = os.stat(self.path).st_mtime_ns, time.monotonic()
        self.notify(
            f"{self.folder} was last written by {holder}; "
            f"waiting up to {EXPIRY_SECONDS:.0f} s to see whether it still is"
        )
        while time.monotonic() - since < EXPIRY_SECONDS:
            time.sleep(min(1.0, EXPIRY_SECONDS / 4))
            try:
                with open(self.path, "rb") as stream:
                    touched = os.fstat(stream.fileno()).st_mtime_ns
            except FileNotFoundError:
                return  # its end
            if touched != last:
                raise self._refused(holder)

    def _refused(self, holder: Holder | None) -> ConfigError:
        who = str(holder) if holder is not None else "another process"
        return ConfigError(
            Problem(
                f"{self.folder} is being written by another run: {who}",
                hint="wait for it or end it; another run needs another name or save_path",
            )
        )

    def _read(self, descriptor: int) -> Holder | None:
        try:
            return Holder.parse(os.pread(descriptor, LARGEST, 0))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # the file is new, or was cut off

    def _write(self) -> None:
        process = identity.of_process(os.getpid())
        name, boot = socket.gethostname(), identity.boot()
        holder = Holder(os.getpid(), name, _user(), boot, time.time(), process)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _user() -> str:
    with contextlib.suppress(Exception):
        return getpass.getuser()
    return ""
