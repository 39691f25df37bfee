"""Stands between a process and what it prints, and remembers the end of it when the process dies.

It is a program of its own, of the standard library only, and is started by path: ``python -I -S
witness.py FOLDER PID OUT_READ OUT_WRITE ERR_READ ERR_WRITE``. What comes out of the two pipes goes
on as it is. A process that was killed cannot say what it printed last, nor how it ended: then that
is written to the folder. If the folder is gone, the process has ended in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

KEPT = 16_384  # bytes of each stream
CHUNK = 65_536
PAUSE = 0.5  # seconds between two looks at a process that has no pidfd
NAME = "last.json"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


class Stream:
    """One pipe into another."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        self.tail = b""
        self.cut = self.ended = False

    def pass_on(self) -> bool:
        """Read once, and write that; return whether there was something."""
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.ended = True
            os.close(self.target)
            return False
        tail = self.tail + data
        self.cut = self.cut or len(tail) > KEPT
        self.tail = tail[-KEPT:]
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self.target, data) :]
        return True


def exit_status(pid: int) -> int | None:
    """Return how a process ended, as of waitpid, if its parent has not asked for that yet."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] == b"Z":
            return int(fields[49])
    return None


def out_of_memory_kills() -> int:
    """Return how often the kernel has ended a process of this machine for want of memory."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            counts = dict(line.split() for line in file)
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return 0


def is_over(pid: int, pidfd: int | None, seconds: float) -> bool:
    """Whether a process is at its end, or is so within some seconds."""
    if pidfd is not None:
        return bool(select.select([pidfd], [], [], seconds)[0])
    until = time.monotonic() + seconds
    while os.getppid() == pid and time.monotonic() < until:
        time.sleep(0.02)
    return os.getppid() != pid


def watch(pid: int, streams: list[Stream]) -> int | None:
    """Pass on until the process is over, and return its exit status, if that can be known."""
    try:
        pidfd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:  # it is gone already
        return None
    while waiting := [stream.source for stream in streams if not stream.ended]:
        watched = waiting if pidfd is None else [*waiting, pidfd]
        ready, _, _ = select.select(watched, [], [], PAUSE)
        if pidfd in ready or is_over(pid, pidfd, 0):
            return exit_status(pid)
        for stream in streams:
            if stream.source in ready:
                stream.pass_on()
    # The pipes of a process that dies are closed a moment before it is known to be over. One that
    # lives ends this.
    while not is_over(pid, pidfd, PAUSE):
        pass
    return exit_status(pid)


def main(folder: str, process: str, *descriptors: str) -> None:
    """Pass on, and write what was last when the process is gone."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with what it watches
    out_read, out_write, err_read, err_write = map(int, descriptors)
    streams = {"stdout": Stream(out_read, out_write), "stderr": Stream(err_read, err_write)}
    kills = out_of_memory_kills()
    status = watch(int(process), list(streams.values()))
    for stream in streams.values():
        os.set_blocking(stream.source, False)  # a program that it started may hold the pipe open
        until = time.monotonic() + 1
        while not stream.ended and time.monotonic() < until and stream.pass_on():
            pass
    last = {
        "status": status,
        "out_of_memory": out_of_memory_kills() > kills,
        **{name: stream.tail.decode("utf-8", "replace") for name, stream in streams.items()},
        "cut": [name for name, stream in streams.items() if stream.cut],
    }
    with contextlib.suppress(OSError):
        beside = os.path.join(folder, f".{NAME}")
        with open(beside, "w", encoding="utf-8", opener=_private) as file:
            json.dump(last, file)
        os.replace(beside, os.path.join(folder, NAME))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
