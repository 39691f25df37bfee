"""Small files: written beside and moved into place, read with a default."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import Any


def beside(path: str) -> str:
    """Return a name beside a path, which no other process of any host has: homes may be shared."""
    return f"{path}.{socket.gethostname()}.{os.getpid()}.part"


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


def write_json(path: str, value: Any) -> None:
    """Write a JSON file that only its owner reads."""
    private_folder(os.path.dirname(path))
    part = beside(path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


def publish_json(path: str, value: Any) -> None:
    """Write a JSON file that everybody reads, if the disk has room for it."""
    with contextlib.suppress(OSError):
        with open(f"{path}.part", "w") as stream:
            json.dump(value, stream)
        os.replace(f"{path}.part", path)


def touch(path: str) -> None:
    """Make an empty file that only its owner reads."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def read_json(path: str) -> Any:
    """Return what a JSON file holds, or None."""
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
    """Return the seconds since this host was started, suspended or not; no one sets this clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """Return what changes when the host is started again."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()
