"""How busy a host is, reported periodically by the workers on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypedDict

from flambe._nvidia_smi import MIB, NvidiaSmiError, Query
from flambe.logging.events import Record
from flambe.progress import host_name

PERIOD = 5.0  # seconds between two measurements
DEADLINE = 10.0  # seconds that nvidia-smi has to answer
_QUERY = "gpu=utilization.gpu,memory.used,memory.total"


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
    """Report how busy this host is for as long as this process lives."""
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
    try:
        rows = [[float(cell) for cell in row] for row in Query(_QUERY).rows(DEADLINE)]
    except (NvidiaSmiError, ValueError):
        return []
    return [
        {"use": use, "memory": used * MIB, "memory_total": total * MIB} for use, used, total in rows
    ]
