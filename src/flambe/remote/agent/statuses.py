"""The status of supervised processes: written twice, and never against a supervisor that lives.

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

from flambe.remote.agent import processes
from flambe.remote.agent.files import boot_id, boot_seconds, read_json, write_json
from flambe.remote.agent.protocol import RunRecord, RunState, RunStatus

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


def statuses(root: str) -> dict[str, RunStatus]:
    """Return the status of each process that is known, by name."""
    names = sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, "runs", "*")))
    return {name: run for name in names if (run := status(root, name)) is not None}


def status(root: str, name: str, *, locked: bool = False) -> RunStatus | None:
    """Return the status of a process, or None; ``locked`` is whether its lock is held here."""
    folder = folder_of(root, name)
    record, alive = read(folder), not locked and _is_held(folder)
    is_cut_off = record is None and os.path.exists(os.path.join(folder, STATUS))
    if alive or is_cut_off:
        started = _of_lock(folder)
        if started is not None and (record is None or _is_older(record, started)):
            record = started
    if record is None and (alive or is_cut_off):
        record = _of_processes(folder, name) or (unreadable(folder) if alive else None)
    if record is None:
        return None
    if record.runs and not alive and not lives(record):
        record.state = RunState.LOST
    ended = None
    if record.ended is not None:
        ended = _seconds_since(record.ended, record.ended_counted, record.boot)
    started_ago = _seconds_since(record.started, record.started_counted, record.boot)
    return RunStatus(**vars(record), started_ago=started_ago, ended_ago=ended)


def _is_older(record: RunRecord, other: RunRecord) -> bool:
    if record.marker == other.marker:
        return False
    return (record.generation, record.started) < (other.generation, other.started)


def lives(record: RunRecord) -> bool:
    """Whether the supervisor of a process lives."""
    return processes.is_alive(record.supervisor, record.boot)


def _seconds_since(event: float, counted: float | None, boot: str) -> float:
    """Return how long ago something was; while the host runs, setting its clock changes nothing."""
    if counted is not None and boot == boot_id():
        return max(0.0, boot_seconds() - counted)
    return max(0.0, time.time() - event)


# -- its files ----------------------------------------------------------------------------------


def read(folder: str) -> RunRecord | None:
    """Return what was written last of a process, as far as it can be read, or None."""
    for name in (STATUS, LAST):
        record = _whole(read_json(os.path.join(folder, name)))
        if record is not None:
            return record
    return None


def _whole(value: object) -> RunRecord | None:
    """Return the record that a JSON value holds; None if it was cut off."""
    if isinstance(value, dict) and set(value) >= _FIELDS:
        return RunRecord.from_json(value)
    return None


def write(folder: str, record: RunRecord) -> bool:
    """Write the state of a process; return whether that could be done.

    Nothing is written where another supervisor has written since.
    """
    other = read(folder)
    is_anothers = other is not None and other.marker != record.marker
    if other is not None and is_anothers and (lives(other) or _is_older(record, other)):
        return True
    try:
        write_json(os.path.join(folder, LAST), record.to_json())
        write_json(os.path.join(folder, STATUS), record.to_json())
    except OSError:
        return False
    return True


def is_damaged(folder: str) -> bool:
    """Whether the state of a process is there, and cannot be read."""
    path = os.path.join(folder, STATUS)
    return os.path.exists(path) and _whole(read_json(path)) is None


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


def write_to_lock(descriptor: int, record: RunRecord) -> None:
    """Write into a lock what its holder has started."""
    data = json.dumps(record.to_json()).encode() + b"\n"
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


def next_generation(folder: str) -> int:
    """Return the number of the process that is about to be started; its lock is held here."""
    records = (read(folder), _of_lock(folder))
    return 1 + max(record.generation if record is not None else 0 for record in records)


def _of_lock(folder: str) -> RunRecord | None:
    """Return what the last supervisor has started, if it can be read."""
    try:
        with open(os.path.join(folder, LOCK), "rb") as stream:
            return _whole(json.loads(stream.read(_LARGEST).partition(b"\n")[0]))
    except (OSError, ValueError):
        return None


def _of_processes(folder: str, name: str) -> RunRecord | None:
    """Return what can be seen of a process whose files cannot be read; None if there is none."""
    markers = processes.markers_of(name)
    log = os.path.join(folder, "output.log")
    for pid, marker in markers.items():
        parent = processes.parent_of(pid)
        if markers.get(parent) == marker or not _writes(pid, log):
            continue
        record = unreadable(folder)
        record.marker, record.pid = marker, pid
        record.supervisor = processes.identity(parent)
        return record
    return None


def _writes(pid: int, log: str) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/fd/1", log)
    except OSError:
        return False


def unreadable(folder: str) -> RunRecord:
    """Return the record of a process of which nothing is known but that it runs."""
    about: dict[str, object] = {
        "user": "an unknown user",
        "host": socket.gethostname(),
        "what": "running",
        "command": "its state cannot be read",
        "environment": "",
    }
    return RunRecord(
        state=RunState.RUNNING,
        about=about,
        boot=boot_id(),
        started=time.time(),
        log=os.path.join(folder, "output.log"),
        supervisor=[0, -1],
    )
