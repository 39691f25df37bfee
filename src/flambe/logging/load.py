"""How busy a host is: told now and then by those who work on it."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypedDict

from flambe.logging.events import Record
from flambe.progress import host_name

PERIOD = 5.0  # seconds between two looks
DEADLINE = 10.0  # seconds that nvidia-smi has to answer
_QUERY = "utilization.gpu,memory.used,memory.total"


class GpuLoad(TypedDict):
    """How busy a GPU is: percent, and bytes of its memory."""

    use: float
    memory: float
    memory_total: float


class HostLoad(TypedDict):
    """How busy a host is: percent of all its processors, how many they are, and bytes of memory."""

    cpu: float
    cpus: int
    memory: int
    memory_total: int
    gpus: list[GpuLoad]


def watch(send: Callable[[Record], None]) -> None:
    """Tell how busy this host is for as long as this process lives."""
    threading.Thread(target=_watch, args=(send,), name="flambe-load", daemon=True).start()


def _watch(send: Callable[[Record], None]) -> None:
    import psutil

    host = host_name()
    psutil.cpu_percent()  # what is asked next is measured from here on
    while True:
        time.sleep(PERIOD)
        send(Record("", "load", host, measure(), None, time.time()))


def measure() -> HostLoad:
    """Return how busy this host is, its processors since the last call."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu": psutil.cpu_percent(),
        "cpus": psutil.cpu_count() or 1,
        "memory": memory.total - memory.available,
        "memory_total": memory.total,
        "gpus": _gpus(),
    }


def _gpus() -> list[GpuLoad]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        rows = [[float(cell) for cell in line.split(",")] for line in _ask_gpus().splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    mib = 1024.0**2
    return [
        {"use": use, "memory": used * mib, "memory_total": total * mib} for use, used, total in rows
    ]


_hung: list[subprocess.Popen[str]] = []  # where a driver hangs, what asks it cannot be killed


def _ask_gpus() -> str:
    """Return what nvidia-smi prints; nothing as long as one hangs, whose end is not waited for."""
    if any(process.poll() is None for process in _hung):
        return ""
    _hung.clear()
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = subprocess.Popen(command, stdin=null, stdout=pipe, stderr=null, text=True)
    try:
        output, _ = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        _hung.append(process)
        raise
    return output if process.returncode == 0 else ""
