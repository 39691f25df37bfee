"""Processes that outlive whoever started them.

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
from typing import Any

from flambe.remote.agent import leases
from flambe.remote.agent import statuses as states
from flambe.remote.agent.files import boot_id, boot_seconds, private_folder, touch
from flambe.remote.agent.processes import MARKER, end_marked, identity, is_alive
from flambe.remote.agent.statuses import RUNNING, folder_of, status, statuses

__all__ = ["RUNNING", "follow", "retire", "start", "status", "statuses", "stop"]

STOPPING = "stopping"  # a file: what is kept is not started again
GRACE = 20.0  # seconds between SIGTERM and SIGKILL
PERIOD = 0.2
HEARTBEAT = 5.0
LAST_WORD = 600.0  # seconds that it is tried to write how something ended
LEASE = 120.0  # seconds that a lease lasts when it is not renewed
AGAIN_FIRST, AGAIN_MOST = 1.0, 30.0  # seconds until what ended is started again
# What one thread has open, the child of another one would keep.
_FORKING = threading.Lock()


# -- starting -----------------------------------------------------------------------------------


def start(
    root: str,
    name: str,
    command: list[str],
    folder: str,
    env: dict[str, str],
    about: dict[str, Any],
    log: str = "",
    removed: list[str] | None = None,
    after: list[list[str]] | None = None,
    keep: bool = False,
    lease: float = 0.0,
) -> Any:
    """Start a command under a supervisor, unless one of that name runs; return its status.

    Files that are named in ``removed`` are deleted when it has ended, and the commands in ``after``
    are run; where its supervisor was killed, :func:`stop` does that. With ``keep`` it is started
    again whenever it ends, until :func:`stop`. With ``lease`` the host is needed while it runs,
    unless it says nothing for so many seconds.
    """
    place = folder_of(root, name)
    private_folder(place)
    output = log or os.path.join(place, "output.log")
    found: dict[str, Any] = {
        "state": RUNNING,
        "command": command,
        "about": about,
        "marker": f"{name}-{os.getpid()}-{time.time_ns()}",
        "boot": boot_id(),
        "started": time.time(),
        "started_counted": boot_seconds(),
        "log": output,
        "removed": removed or [],
        "after": after or [],
        "keep": keep,
        "restarts": 0,
        "lease": lease,
    }
    with _FORKING:
        lock = states.lock(place)
        known = status(root, name, locked=lock is not None)
        if lock is None or (known is not None and known["state"] == RUNNING):
            if lock is not None:  # it is of a version that had no locks
                os.close(lock)
            return dict(known or states.unreadable(place), started_now=False)
        if known is not None:
            end_marked(known["marker"])  # its supervisor may have been killed
        ready = _begin(place, found, folder, env, lock)
    # It answers when the command runs, or could not be started.
    with os.fdopen(ready) as stream:
        stream.read()
    return dict(status(root, name) or {"state": "lost"}, started_now=True)


def _begin(place: str, found: dict[str, Any], folder: str, env: dict[str, str], lock: int) -> int:
    """Start a supervisor, and give it the lock; return what ends when the command runs."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(place, STOPPING))
    os.makedirs(os.path.dirname(found["log"]), exist_ok=True)
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        _detached(lambda: _supervise(place, found, folder, env, write, lock))
    os.close(write)
    os.close(lock)
    return read


def _detached(do: Callable[[], None]) -> None:
    """Do something in a process that belongs to nobody, then end."""
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
    place: str,
    found: dict[str, Any],
    folder: str,
    env: dict[str, str],
    ready: int,
    lock: int,
) -> None:
    command = found["command"]
    found["supervisor"] = identity(os.getpid())
    log = os.open(found["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    environment = dict(os.environ, **env)
    environment[MARKER] = found["marker"]
    found["pid"] = _spawn(command, folder, environment, log)
    states.note(lock, found)
    states.write(place, found)
    os.close(ready)
    pause = AGAIN_FIRST
    while True:
        begun = time.monotonic()
        code = _wait(place, found)
        if not found["keep"] or os.path.exists(os.path.join(place, STOPPING)):
            break
        end_marked(found["marker"])
        pause = AGAIN_FIRST if time.monotonic() - begun > AGAIN_MOST else min(pause * 2, AGAIN_MOST)
        os.write(log, (f"flambe: it ended (exit code {code}) and is started again\n").encode())
        if _stopped_within(place, pause):
            break
        found["pid"] = _spawn(command, folder, environment, log)
        found["restarts"] += 1
        states.note(lock, found)
        states.write(place, found)
    os.close(log)
    _clean(found)
    leases.give_back(*_lease_of(place))
    found.update(state="ended", code=code, ended=time.time(), ended_counted=boot_seconds())
    deadline = time.monotonic() + LAST_WORD
    while not states.write(place, found) and time.monotonic() < deadline:
        time.sleep(PERIOD)  # the disk is full, say


def _spawn(command: list[str], folder: str, environment: dict[str, str], log: int) -> int:
    child = os.fork()
    if child == 0:
        _become(command, folder, environment, log)
    return child


def _stopped_within(place: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.path.exists(os.path.join(place, STOPPING)):
            return True
        time.sleep(PERIOD)
    return False


def _clean(found: dict[str, Any]) -> None:
    """End what a process left behind, and delete what was to be deleted at its end."""
    end_marked(found["marker"])
    for path in found["removed"]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    for command in found["after"]:
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


def _wait(place: str, found: dict[str, Any]) -> int:
    """Wait for the end of a process, with a heartbeat; return its exit code."""
    beat, log = 0.0, _Log(found["log"])
    while True:
        pid, state = os.waitpid(found["pid"], os.WNOHANG)
        if pid:
            return os.WEXITSTATUS(state) if os.WIFEXITED(state) else 128 + os.WTERMSIG(state)
        if time.monotonic() - beat > HEARTBEAT:
            beat = time.monotonic()
            _beat(place, found)
            if log.silence() < found["lease"]:
                with contextlib.suppress(OSError):
                    leases.take(*_lease_of(place), LEASE)
        time.sleep(PERIOD)


def _beat(place: str, found: dict[str, Any]) -> None:
    """Say that it lives; what was made of its state by something else is put right."""
    if states.is_damaged(place):
        states.write(place, found)
    with contextlib.suppress(OSError):
        os.utime(os.path.join(place, states.STATUS))


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


def _lease_of(place: str) -> tuple[str, str]:
    """Return where the lease of a process is, and its name."""
    return os.path.dirname(os.path.dirname(place)), os.path.basename(place)


# -- ending -------------------------------------------------------------------------------------


def stop(root: str, name: str, grace: float = GRACE) -> Any:
    """End a process and all that it started; return its status."""
    known = status(root, name)
    if known is None:
        return None
    if known["state"] == RUNNING:
        touch(os.path.join(folder_of(root, name), STOPPING))
        known = status(root, name) or known  # it may just have been started again
        if known["pid"] <= 0:
            return known  # nobody can say which processes are its own
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(known["pid"], signal.SIGTERM)
        deadline = time.monotonic() + grace
        while is_alive(known["supervisor"], known["boot"]) and time.monotonic() < deadline:
            time.sleep(PERIOD)
        if is_alive(known["supervisor"], known["boot"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(known["pid"], signal.SIGKILL)
            deadline = time.monotonic() + grace
            while is_alive(known["supervisor"], known["boot"]) and time.monotonic() < deadline:
                time.sleep(PERIOD)
    _clean(known)
    return status(root, name)


def retire(root: str, cluster: str) -> None:
    """End all that a cluster runs here; its reaper, which asks for it, ends by itself then."""
    reaper = f"{cluster}.reaper"
    touch(os.path.join(folder_of(root, reaper), STOPPING))
    for name in statuses(root):
        if name == cluster or (name.startswith(f"{cluster}.") and name != reaper):
            stop(root, name)


# -- its log ------------------------------------------------------------------------------------


def follow(root: str, name: str, offset: int, *, once: bool = False) -> int:
    """Print the log of a process from an offset on, each line after the offset of the next.

    Ends when the process has: with a line ``end <code>``, or ``end lost``.
    """
    out = sys.stdout.buffer
    found = status(root, name)
    if found is None:
        return 3
    with open(found["log"], "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(min(offset, size) if offset >= 0 else max(0, size + offset))
        if offset < 0 and stream.tell():
            stream.readline()  # the rest of a line
        while True:
            over = once or (found := status(root, name)) is None or found["state"] != RUNNING
            position = stream.tell()
            for line in stream:
                if not line.endswith(b"\n") and not over:
                    stream.seek(position)  # it is not whole yet
                    break
                position += len(line)
                out.write(b"%d %s\n" % (position, line.rstrip(b"\n")))
            out.flush()
            if over:
                code = (found or {}).get("code", "lost")
                out.write(b"" if once else b"end %s\n" % str(code).encode())
                out.flush()
                return 0
            time.sleep(PERIOD)
