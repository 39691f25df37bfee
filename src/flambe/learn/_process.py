"""One process in a group of its own, that cannot outlive this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# How long a process that was asked to stop may take.
_GRACE = 5.0
# How often `idle` is called.
_INTERVAL = 0.2
# Reads one line: without one (this process is gone, however it ended) the group is killed.
# Not `kill -KILL --`, which dash does not understand.
_GUARD = 'read -r line || kill -s KILL -- "-$1"'


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    line: Callable[[str], None],
    idle: Callable[[], None],
) -> int:
    """Run a command to its end.

    Parameters
    ----------
    command
        The program and its arguments.
    folder
        Its working directory.
    environment
        All of its environment.
    line
        Called with each line of its output (both streams, as they come), by another thread.
    idle
        Called now and then while it runs, by this thread.

    Returns
    -------
    int
        Its exit code; negative is the signal that ended it.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with _guarded(process):
        reader = threading.Thread(target=_forward, args=(process, line), daemon=True)
        reader.start()
        try:
            while True:
                idle()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(_INTERVAL)
                    break
        except BaseException:
            _stop(process)
            raise
        finally:
            # What it left in the background may hold its output open.
            reader.join(_GRACE)
            if reader.is_alive():
                _signal(process, signal.SIGKILL)
                reader.join(_GRACE)
    return code


def _forward(process: subprocess.Popen[str], line: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for text in process.stdout:
            line(text.rstrip("\n"))


@contextlib.contextmanager
def _guarded(process: subprocess.Popen[str]) -> Iterator[None]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            guard.communicate(b"done\n")


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the group to stop, then make it."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
