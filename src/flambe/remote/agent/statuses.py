"""What is known of supervised processes: written twice, and never against a supervisor that lives.

``runs/<name>/status.json`` is the state, ``status.json.last`` the same once more, in case that one
cannot be read. A supervisor holds ``supervisor.lock`` for as long as it lives, and has written in
there what it started with: the kernel says whether it lives, whatever became of the other two.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import socket
import time
from typing import Any

from flambe.remote.agent import processes
from flambe.remote.agent.files import boot_id, boot_seconds, read_json, write_json

RUNNING = "running"
STATUS, LAST, LOCK = "status.json", "status.json.last", "supervisor.lock"
# What is always in a status: one that lacks it was cut off.
_FIELDS = frozenset(("state", "marker", "boot", "started", "log", "about", "supervisor", "pid"))
# What file systems answer that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
# Whoever looks whether a lock is held has it for a moment.
_MOMENT, _MOMENTS = 0.05, 40
_LARGEST = 1 << 20  # bytes


def folder_of(root: str, name: str) -> str:
    """Return the folder of a process."""
    return os.path.join(root, "runs", name)


def statuses(root: str) -> dict[str, Any]:
    """Return the status of each process that is known: name → what is known of it."""
    names = sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, "runs", "*")))
    return {name: found for name in names if (found := status(root, name)) is not None}


def status(root: str, name: str, *, locked: bool = False) -> Any:
    """Return what is known of one, or None.

    ``state`` is ``running``, ``ended`` (with a ``code``), or ``lost``: its supervisor is gone and
    could not say how it ended. ``started_ago`` and ``ended_ago`` are in seconds, by the clock of
    this host: nobody else's is compared with it. ``locked`` is whether the lock is held here.
    """
    folder = folder_of(root, name)
    found, alive = read(folder), not locked and _is_held(folder)
    is_cut_off = found is None and os.path.exists(os.path.join(folder, STATUS))
    if alive or is_cut_off:
        started = _of_lock(folder)
        if started is not None and (found is None or _is_older(found, started)):
            found = started
    if found is None and (alive or is_cut_off):
        found = _of_processes(folder, name) or (unreadable(folder) if alive else None)
    if found is None:
        return None
    if found["state"] == RUNNING and not alive and not _lives(found):
        found["state"] = "lost"
    for event in ("started", "ended"):
        if event in found:
            found[event + "_ago"] = _ago(found, event)
    return found


def _is_older(found: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(found["marker"] != other["marker"] and found["started"] < other["started"])


def _lives(found: dict[str, Any]) -> bool:
    return processes.is_alive(found["supervisor"], found["boot"])


def _ago(found: dict[str, Any], event: str) -> float:
    """Return the seconds since an event; while the host runs, setting its clock changes nothing."""
    counted = found.get(event + "_counted")
    if counted is not None and found["boot"] == boot_id():
        return max(0.0, boot_seconds() - float(counted))
    return max(0.0, time.time() - float(found[event]))


# -- its files ----------------------------------------------------------------------------------


def read(folder: str) -> Any:
    """Return what was written last of a process, as far as it can be read, or None."""
    for name in (STATUS, LAST):
        found = read_json(os.path.join(folder, name))
        if _is_whole(found):
            return found
    return None


def _is_whole(found: Any) -> bool:
    return isinstance(found, dict) and set(found) >= _FIELDS


def write(folder: str, found: dict[str, Any]) -> bool:
    """Write the state of a process; return whether that could be done.

    Nothing is written where another supervisor has written since.
    """
    other = read(folder)
    is_anothers = other is not None and other["marker"] != found["marker"]
    if is_anothers and (_lives(other) or _is_older(found, other)):
        return True
    try:
        write_json(os.path.join(folder, LAST), found)
        write_json(os.path.join(folder, STATUS), found)
    except OSError:
        return False
    return True


def is_damaged(folder: str) -> bool:
    """Whether the state of a process is there, and cannot be read."""
    path = os.path.join(folder, STATUS)
    return os.path.exists(path) and not _is_whole(read_json(path))


# -- its lock -----------------------------------------------------------------------------------


def lock(folder: str) -> int | None:
    """Return a descriptor that holds the lock of a supervisor; None if one lives.

    Where the file system has no locks, it holds nothing.
    """
    descriptor = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(_MOMENTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_MOMENT)
            continue
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        return descriptor
    os.close(descriptor)
    return None


def note(descriptor: int, found: dict[str, Any]) -> None:
    """Write into a lock what its holder has started."""
    data = json.dumps(found).encode() + b"\n"
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    except OSError:  # a full disk, say: it is held all the same
        pass


def _is_held(folder: str) -> bool:
    try:
        descriptor = os.open(os.path.join(folder, LOCK), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _of_lock(folder: str) -> Any:
    """Return what the last supervisor has started, if it can be read."""
    try:
        with open(os.path.join(folder, LOCK), "rb") as stream:
            found = json.loads(stream.read(_LARGEST).partition(b"\n")[0])
    except (OSError, ValueError):
        return None
    return found if _is_whole(found) else None


def _of_processes(folder: str, name: str) -> Any:
    """Return what can be seen of a process whose files cannot be read; None if there is none."""
    known = processes.markers_of(name)
    log = os.path.join(folder, "output.log")
    for pid, marker in known.items():
        parent = processes.parent_of(pid)
        if known.get(parent) == marker or not _writes(pid, log):
            continue
        found = unreadable(folder)
        found.update(marker=marker, pid=pid, supervisor=processes.identity(parent))
        return found
    return None


def _writes(pid: int, log: str) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/fd/1", log)
    except OSError:
        return False


def unreadable(folder: str) -> dict[str, Any]:
    """Return the state of a process of which nothing is known but that it runs."""
    about = {"user": "somebody", "host": socket.gethostname(), "what": "running"}
    return {
        "state": RUNNING,
        "command": [],
        "about": dict(about, command="its state cannot be read", environment=""),
        "marker": "",
        "boot": boot_id(),
        "started": time.time(),
        "started_ago": 0.0,
        "log": os.path.join(folder, "output.log"),
        "removed": [],
        "after": [],
        "keep": False,
        "restarts": 0,
        "lease": 0.0,
        "supervisor": [0, -1],
        "pid": 0,
    }
