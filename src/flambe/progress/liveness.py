"""Whether a run whose state says *running* is alive: one that was killed could not update it."""

from __future__ import annotations

import math
import socket
import time

from flambe.progress.state import RunState, Status

SILENT = 120.0  # seconds without a sign of life after which a run on another host counts as dead


def is_alive(run: RunState) -> bool:
    """Whether an unfinished run is alive: its process exists, or it was heard from recently."""
    if run.status is not Status.RUNNING:
        return True
    if run.host == socket.gethostname():
        return process_lives(run.pid, run.started or math.inf)
    return time.time() - (run.updated or 0.0) < SILENT


def interrupt(run: RunState) -> None:
    """Mark a run and its stages as interrupted, at the time of its last sign of life."""
    for stage in run.stages:
        if stage.status is Status.RUNNING:
            stage.status, stage.ended = Status.INTERRUPTED, run.updated
    run.status, run.ended = Status.INTERRUPTED, run.updated


def process_lives(pid: int, since: float) -> bool:
    """Return whether a process of this machine that began before a time lives."""
    import psutil

    if not 0 < pid < 2**31:
        return False
    try:
        process = psutil.Process(pid)
        # Numbers of processes are used again.
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
