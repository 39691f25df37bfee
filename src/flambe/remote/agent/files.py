"""Small files: written beside and moved into place, read with a default."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time


def write_text(path: str, text: str, *, sync: bool = False) -> None:
    """Write a file that only its owner reads, as a whole: beside, then moved into place.

    Parameters
    ----------
    path
        The file, in a folder that exists.
    text
        Its content.
    sync
        Whether it is on the disk before it is moved: after a power cut, it is whole too.
    """
    # Hosts may share a home: no other process of any of them has this name.
    part = f"{path}.{socket.gethostname()}.{os.getpid()}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(part, path)


def private_folder(path: str) -> None:
    """Make a folder that only its owner reaches, whatever the umask, with its missing parents."""
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        private_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.stat(path)
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        os.chmod(path, 0o700)


def write_json(path: str, value: object) -> None:
    """Write a JSON file that only its owner reads, and the folder that it is in."""
    private_folder(os.path.dirname(path))
    write_text(path, json.dumps(value), sync=True)


def publish_json(path: str, value: object) -> None:
    """Write a JSON file that every user may read, if the disk has room for it."""
    with contextlib.suppress(OSError):
        with open(f"{path}.part", "w") as stream:
            json.dump(value, stream)
        os.replace(f"{path}.part", path)


def touch(path: str) -> None:
    """Make an empty file that only its owner reads."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def read_json(path: str) -> object:
    """Return what a JSON file holds; None if it cannot be read."""
    try:
        with open(path) as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def read_text(path: str) -> str:
    """Return a text file, or nothing."""
    try:
        with open(path, errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def boot_seconds() -> float:
    """Return the seconds since this host was started, suspended or not; this clock is never set."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """Return what changes when the host is started again."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()
