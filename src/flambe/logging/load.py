"""How busy a host is: told now and then by those who work on it."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from flambe.logging.events import Record
from flambe.progress import host_name

PERIOD = 5.0  # seconds between two looks
_QUERY = "utilization.gpu,memory.used,memory.total"


def watch(send: Callable[[Record], None]) -> None:
    """Tell how busy this host is for as long as this process lives."""
    threading.Thread(target=_watch, args=(send,), name="flambe-load", daemon=True).start()


def _watch(send: Callable[[Record], None]) -> None:
    import psutil

    host = host_name()
    psutil.cpu_percent()  # what is asked next is measured from here on
    while True:
        time.sleep(PERIOD)
        send(Record("", "load", host, look(), None, time.time()))


def look() -> dict[str, Any]:
    """Return how busy this host is.

    Returns
    -------
    dict
        ``cpu``: percent of all processors since the last look; ``cpus``: how many there are;
        ``memory``, ``memory_total``: bytes; ``gpus``: of each ``use`` (percent), ``memory`` and
        ``memory_total`` (bytes).
    """
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu": psutil.cpu_percent(),
        "cpus": psutil.cpu_count(),
        "memory": memory.total - memory.available,
        "memory_total": memory.total,
        "gpus": _gpus(),
    }


def _gpus() -> list[dict[str, float]]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        rows = [[float(cell) for cell in line.split(",")] for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    mib = 1024.0**2
    return [
        {"use": use, "memory": used * mib, "memory_total": total * mib} for use, used, total in rows
    ]
