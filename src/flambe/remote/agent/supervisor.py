"""Processes that outlive whoever started them.

Each has a folder, ``runs/<name>/``: ``status.json`` and ``output.log``. A supervisor of its own
waits for its end. What it starts carries a marker in its environment, so that all of it is found
and ended, whatever sessions it opened. One that is to be kept is started again whenever it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from flambe.remote.agent import leases
from flambe.remote.agent.files import boot_id, private_folder, read_json, touch, write_json

MARKER = "FLAMBE_SUPERVISED"
RUNNING = "running"
STOPPING = "stopping"  # a file: what is kept is not started again
GRACE = 20.0  # seconds between SIGTERM and SIGKILL
PERIOD = 0.2
HEARTBEAT = 5.0
LEASE = 120.0  # seconds that a lease lasts when it is not renewed
AGAIN_FIRST, AGAIN_MOST = 1.0, 30.0  # seconds until what ended is started again


def _folder(root: str, name: str) -> str:
    return os.path.join(root, "runs", name)


# -- what is there ------------------------------------------------------------------------------


def statuses(root: str) -> dict[str, Any]:
    """Return the status of each process that is known: name → what is known of it."""
    names = sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, "runs", "*")))
    return {name: found for name in names if (found := status(root, name)) is not None}


def status(root: str, name: str) -> Any:
    """Return what is known of one, or None.

    ``state`` is ``running``, ``ended`` (with a ``code``), or ``lost``: its supervisor is gone and
    could not say how it ended. ``started_ago`` and ``ended_ago`` are in seconds, by the clock of
    this host: nobody else's is compared with it.
    """
    found = read_json(os.path.join(_folder(root, name), "status.json"))
    if found is None:
        return None
    if found["state"] == RUNNING and not _is(found["supervisor"], found["boot"]):
        found["state"] = "lost"
    for event in ("started", "ended"):
        if event in found:
            found[event + "_ago"] = _ago(found, event)
    return found


def _ago(found: dict[str, Any], event: str) -> float:
    """Return the seconds since an event; while the host runs, setting its clock changes nothing."""
    counted = found.get(event + "_counted")
    if counted is not None and found["boot"] == boot_id():
        return max(0.0, boot_seconds() - float(counted))
    return max(0.0, time.time() - float(found[event]))


def boot_seconds() -> float:
    """Return the seconds since this host was started, whatever its clock was set to since."""
    return float(time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)))


def _identity(pid: int) -> list[int]:
    """Return a process id with the time of its start: ids are used again."""
    return [pid, _started(pid)]


def _started(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])


def _is(identity: list[int], boot: str) -> bool:
    pid, started = identity
    return boot == boot_id() and started >= 0 and _started(pid) == started


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
    place = _folder(root, name)
    known = status(root, name)
    if known is not None and known["state"] == RUNNING:
        return dict(known, started_now=False)
    if known is not None:
        end_marked(known["marker"])  # its supervisor may have been killed
    private_folder(place)
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(place, STOPPING))
    output = log or os.path.join(place, "output.log")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    marker = f"{name}-{os.getpid()}-{time.time_ns()}"
    found: dict[str, Any] = {
        "state": RUNNING,
        "command": command,
        "about": about,
        "marker": marker,
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
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        _detached(lambda: _supervise(place, found, command, folder, env, write))
    os.close(write)
    # It answers when the command runs, or could not be started.
    with os.fdopen(read) as stream:
        stream.read()
    return dict(status(root, name) or {"state": "lost"}, started_now=True)


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
    command: list[str],
    folder: str,
    env: dict[str, str],
    ready: int,
) -> None:
    path = os.path.join(place, "status.json")
    found["supervisor"] = _identity(os.getpid())
    log = os.open(found["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    environment = dict(os.environ, **env)
    environment[MARKER] = found["marker"]
    found["pid"] = _spawn(command, folder, environment, log)
    write_json(path, found)
    os.close(ready)
    pause = AGAIN_FIRST
    while True:
        begun = time.monotonic()
        code = _wait(path, found)
        if not found["keep"] or os.path.exists(os.path.join(place, STOPPING)):
            break
        end_marked(found["marker"])
        pause = AGAIN_FIRST if time.monotonic() - begun > AGAIN_MOST else min(pause * 2, AGAIN_MOST)
        os.write(log, (f"flambe: it ended (exit code {code}) and is started again\n").encode())
        if _stopped_within(place, pause):
            break
        found["pid"] = _spawn(command, folder, environment, log)
        found["restarts"] += 1
        write_json(path, found)
    os.close(log)
    _clean(found)
    leases.give_back(*_lease_of(place))
    found.update(state="ended", code=code, ended=time.time(), ended_counted=boot_seconds())
    write_json(path, found)


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


def _wait(path: str, found: dict[str, Any]) -> int:
    """Wait for the end of a process, with a heartbeat; return its exit code."""
    beat, log = 0.0, _Log(found["log"])
    while True:
        pid, state = os.waitpid(found["pid"], os.WNOHANG)
        if pid:
            return os.WEXITSTATUS(state) if os.WIFEXITED(state) else 128 + os.WTERMSIG(state)
        if time.monotonic() - beat > HEARTBEAT:
            beat = time.monotonic()
            os.utime(path)
            if log.silence() < found["lease"]:
                with contextlib.suppress(OSError):
                    leases.take(*_lease_of(os.path.dirname(path)), LEASE)
        time.sleep(PERIOD)


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
        touch(os.path.join(_folder(root, name), STOPPING))
        known = status(root, name)  # it may just have been started again
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(known["pid"], signal.SIGTERM)
        deadline = time.monotonic() + grace
        while _is(known["supervisor"], known["boot"]) and time.monotonic() < deadline:
            time.sleep(PERIOD)
        if _is(known["supervisor"], known["boot"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(known["pid"], signal.SIGKILL)
            deadline = time.monotonic() + grace
            while _is(known["supervisor"], known["boot"]) and time.monotonic() < deadline:
                time.sleep(PERIOD)
    _clean(known)
    return status(root, name)


def retire(root: str, cluster: str) -> None:
    """End all that a cluster runs here; its reaper, which asks for it, ends by itself then."""
    reaper = f"{cluster}.reaper"
    touch(os.path.join(_folder(root, reaper), STOPPING))
    for name in statuses(root):
        if name == cluster or (name.startswith(f"{cluster}.") and name != reaper):
            stop(root, name)


def marked(marker: str) -> list[int]:
    """Return the processes of this user that carry a marker."""
    wanted = (f"{MARKER}={marker}").encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ", "rb") as stream:
                    if wanted in stream.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue
    return found


def name_of(pid: int) -> str:
    """Return the name of what started a process of this user; nothing, if nothing of ours did."""
    head = f"{MARKER}=".encode()
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            marks = [part for part in stream.read().split(b"\0") if part.startswith(head)]
    except OSError:
        return ""
    return marks[0][len(head) :].decode().rsplit("-", 2)[0] if marks else ""


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
