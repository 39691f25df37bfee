"""Processes of this host: their identity, and those that carry the marker of a supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from flambe.remote.agent.files import boot_id

MARKER = "FLAMBE_SUPERVISED"


def identity(pid: int) -> list[int]:
    """Return a process id with the time of its start: ids are used again."""
    return [pid, started(pid)]


def started(pid: int) -> int:
    """Return when a process was started, in the units of the kernel; -1 if there is none."""
    fields = _fields(pid)
    return -1 if not fields or fields[0] in "ZX" else int(fields[19])


def parent_of(pid: int) -> int:
    """Return the process that started another one, or 0."""
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def _fields(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(process: list[int], boot: str) -> bool:
    """Whether a process still exists, by its :func:`identity` and the boot that it belongs to."""
    if len(process) != 2 or boot != boot_id():
        return False
    pid, since = process
    return since >= 0 and started(pid) == since


def marked(marker: str) -> list[int]:
    """Return the processes of this user that carry a marker."""
    mark = (f"{MARKER}={marker}").encode()
    return [pid for pid in _all() if mark in _environment(pid)]


def markers_of(name: str) -> dict[int, str]:
    """Return the processes of this user that a supervisor of a name has started, and markers."""
    return {pid: marker for pid in _all() if _name(marker := marker_of(pid)) == name}


def name_of(pid: int) -> str:
    """Return the name of what started a process of this user; nothing, if nothing of ours did."""
    return _name(marker_of(pid))


def marker_of(pid: int) -> str:
    """Return the marker that a process carries, or nothing."""
    head = f"{MARKER}=".encode()
    marks = [part for part in _environment(pid) if part.startswith(head)]
    return marks[0][len(head) :].decode(errors="replace") if marks else ""


def _name(marker: str) -> str:
    return marker.rsplit("-", 2)[0]


def _all() -> list[int]:
    return [
        int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()
    ]


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            return stream.read().split(b"\0")
    except OSError:
        return []


def end_marked(marker: str, grace: float = 5.0) -> None:
    """End what carries a marker: asked first, then killed."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
        left = marked(marker)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = marked(marker)
        if not left:
            return
