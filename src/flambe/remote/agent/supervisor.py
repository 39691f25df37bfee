"""Processes that outlive their client.

Each has a folder, ``runs/<name>/``: ``status.json`` and ``output.log``. A supervisor of its own
waits for its end. What it starts carries a marker in its environment, so that all of it is found
and ended, whatever sessions it opened. One that is to be kept is started again whenever it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from flambe.remote.agent import leases
from flambe.remote.agent import statuses as states
from flambe.remote.agent.files import boot_id, boot_seconds, private_folder, touch
from flambe.remote.agent.processes import MARKER, end_marked, identity
from flambe.remote.agent.protocol import (
    LeaseRequest,
    RunRecord,
    RunState,
    RunStatus,
    StartRequest,
    StopRequest,
)
from flambe.remote.agent.statuses import folder_of, status, statuses

__all__ = ["follow", "retire", "start", "status", "statuses", "stop"]

STOPPING = "stopping"  # a file: what is kept is not started again
PERIOD = 0.2
HEARTBEAT = 5.0
LAST_WORD = 600.0  # seconds that it is tried to write how something ended
LEASE = 120.0  # seconds that a lease lasts when it is not renewed
AGAIN_FIRST, AGAIN_MOST = 1.0, 30.0  # seconds until what ended is started again
# What one thread has open, the child of another one would keep.
_FORKING = threading.Lock()


# -- starting -----------------------------------------------------------------------------------


def start(root: str, request: StartRequest) -> RunStatus:
    """Start a command under a supervisor, unless one of that name runs; return its status.

    What is to be done at its end is done by :func:`stop` where its supervisor was killed.
    """
    folder = folder_of(root, request.name)
    private_folder(folder)
    record = RunRecord(
        state=RunState.RUNNING,
        command=request.command,
        about=request.about,
        marker=f"{request.name}-{os.getpid()}-{time.time_ns()}",
        boot=boot_id(),
        started=time.time(),
        started_counted=boot_seconds(),
        log=request.log or os.path.join(folder, "output.log"),
        removed=request.removed,
        after=request.after,
        keep=request.keep,
        lease=request.lease,
    )
    with _FORKING:
        lock = states.lock(folder)
        before = status(root, request.name, locked=lock is not None)
        if lock is None or (before is not None and before.runs):
            if lock is not None:  # it is of a version that had no locks
                os.close(lock)
            return before or RunStatus(**vars(states.unreadable(folder)))
        if before is not None:
            end_marked(before.marker)  # its supervisor may have been killed
        record.generation = states.next_generation(folder)
        ready = _begin(folder, record, request, lock)
    # It answers when the command runs, or could not be started.
    with os.fdopen(ready) as stream:
        stream.read()
    begun = status(root, request.name) or RunStatus()
    begun.started_now = True
    return begun


def _begin(folder: str, record: RunRecord, request: StartRequest, lock: int) -> int:
    """Start a supervisor, and give it the lock; return what ends when the command runs."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, STOPPING))
    os.makedirs(os.path.dirname(record.log), exist_ok=True)
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        _detached(lambda: _supervise(folder, record, request, write, lock))
    os.close(write)
    os.close(lock)
    return read


def _detached(do: Callable[[], None]) -> None:
    """Call a function in a process that is detached from this one, then end that process."""
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    try:
        do()
    finally:
        os._exit(0)


def _supervise(
    folder: str, record: RunRecord, request: StartRequest, ready: int, lock: int
) -> None:
    record.supervisor = identity(os.getpid())
    log = os.open(record.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    environment = {**os.environ, **request.env, MARKER: record.marker}

    def spawn() -> None:
        record.pid = _spawn(record.command, request.folder, environment, log)
        states.write_to_lock(lock, record)
        states.write(folder, record)

    spawn()
    os.close(ready)
    pause = AGAIN_FIRST
    while True:
        begun = time.monotonic()
        code = _wait(folder, record)
        if not record.keep or os.path.exists(os.path.join(folder, STOPPING)):
            break
        end_marked(record.marker)
        pause = AGAIN_FIRST if time.monotonic() - begun > AGAIN_MOST else min(pause * 2, AGAIN_MOST)
        os.write(log, (f"flambe: it ended (exit code {code}) and is started again\n").encode())
        if _stopped_within(folder, pause):
            break
        record.restarts += 1
        spawn()
    os.close(log)
    _clean(record)
    leases.give_back(*_lease_of(folder))
    record.state, record.code = RunState.ENDED, code
    record.ended, record.ended_counted = time.time(), boot_seconds()
    deadline = time.monotonic() + LAST_WORD
    while not states.write(folder, record) and time.monotonic() < deadline:
        time.sleep(PERIOD)  # the disk is full, say


def _spawn(command: list[str], folder: str, environment: dict[str, str], log: int) -> int:
    child = os.fork()
    if child == 0:
        _become(command, folder, environment, log)
    return child


def _stopped_within(folder: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.path.exists(os.path.join(folder, STOPPING)):
            return True
        time.sleep(PERIOD)
    return False


def _clean(record: RunRecord) -> None:
    """End what a process left behind, and delete what was to be deleted at its end."""
    end_marked(record.marker)
    for path in record.removed:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    for command in record.after:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=False)


def _become(command: list[str], folder: str, environment: dict[str, str], log: int) -> None:
    try:
        os.setsid()
        _die_with_parent()
        os.dup2(log, 1)
        os.dup2(log, 2)
        umask = os.umask(0o022)
        os.umask(umask if umask & 0o002 else umask | 0o022)  # others do not write what it makes
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(2, (f"cannot start {command[0]}: {error}\n").encode())
    os._exit(127)


def _die_with_parent() -> None:
    """Be killed when the supervisor is (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _wait(folder: str, record: RunRecord) -> int:
    """Wait for the end of a process, with a heartbeat; return its exit code."""
    beat, log = 0.0, _Log(record.log)
    while True:
        pid, state = os.waitpid(record.pid, os.WNOHANG)
        if pid:
            return os.WEXITSTATUS(state) if os.WIFEXITED(state) else 128 + os.WTERMSIG(state)
        if time.monotonic() - beat > HEARTBEAT:
            beat = time.monotonic()
            _beat(folder, record)
            if log.silence() < record.lease:
                root, name = _lease_of(folder)
                with contextlib.suppress(OSError):
                    leases.take(root, LeaseRequest(name, LEASE))
        time.sleep(PERIOD)


def _beat(folder: str, record: RunRecord) -> None:
    """Show that it lives; a state that was damaged is written again."""
    if states.is_damaged(folder):
        states.write(folder, record)
    with contextlib.suppress(OSError):
        os.utime(os.path.join(folder, states.STATUS))


class _Log:
    """A log: for how long nothing was written to it, whatever the time of day is set to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._state: tuple[int, int] = (0, 0)
        self._written = time.monotonic()

    def silence(self) -> float:
        """Return the seconds since it was seen to change."""
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            if (state := (status.st_mtime_ns, status.st_size)) != self._state:
                self._state, self._written = state, time.monotonic()
        return time.monotonic() - self._written


def _lease_of(folder: str) -> tuple[str, str]:
    """Return where the lease of a process is, and its name."""
    return os.path.dirname(os.path.dirname(folder)), os.path.basename(folder)


# -- ending -------------------------------------------------------------------------------------


def stop(root: str, request: StopRequest) -> RunStatus | None:
    """End a process and all that it started; return its status."""
    name = request.name
    before = status(root, name)
    if before is None:
        return None
    if before.runs:
        touch(os.path.join(folder_of(root, name), STOPPING))
        before = status(root, name) or before  # it may just have been started again
        if before.pid <= 0:
            return before  # nothing tells which processes are its own
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(before.pid, number)
            deadline = time.monotonic() + request.grace
            while states.lives(before) and time.monotonic() < deadline:
                time.sleep(PERIOD)
            if not states.lives(before):
                break
    _clean(before)
    return status(root, name)


def retire(root: str, cluster: str) -> None:
    """End all that a cluster runs here; its reaper, which asks for it, ends by itself then."""
    reaper = f"{cluster}.reaper"
    touch(os.path.join(folder_of(root, reaper), STOPPING))
    for name in statuses(root):
        if name == cluster or (name.startswith(f"{cluster}.") and name != reaper):
            stop(root, StopRequest(name))


# -- its log ------------------------------------------------------------------------------------


def follow(root: str, name: str, offset: int, *, once: bool = False) -> int:
    """Print the log of a process from an offset on, each line after the offset of the next.

    Ends when the process has: with a line ``end <code>``, or ``end lost``.
    """
    out = sys.stdout.buffer
    run = status(root, name)
    if run is None:
        return 3
    with open(run.log, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(min(offset, size) if offset >= 0 else max(0, size + offset))
        if offset < 0 and stream.tell():
            stream.readline()  # the rest of a line
        while True:
            over = once or (run := status(root, name)) is None or not run.runs
            position = stream.tell()
            for line in stream:
                if not line.endswith(b"\n") and not over:
                    stream.seek(position)  # it is not whole yet
                    break
                position += len(line)
                out.write(b"%d %s\n" % (position, line.rstrip(b"\n")))
            out.flush()
            if over:
                code = "lost" if run is None or run.code is None else str(run.code)
                out.write(b"" if once else b"end %s\n" % code.encode())
                out.flush()
                return 0
            time.sleep(PERIOD)
