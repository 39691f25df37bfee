"""The GPUs of this host, and who uses them, as nvidia-smi reports."""

from __future__ import annotations

import os

from flambe._nvidia_smi import MIB, NvidiaSmiError, Query, number
from flambe.remote.agent.processes import name_of
from flambe.remote.agent.protocol import Gpu, GpuProcess

GPUS = "gpu=index,uuid,name,memory.total,memory.used,utilization.gpu"
PROCESSES = "compute-apps=gpu_uuid,pid,used_memory"
DEADLINE = 20.0  # seconds


def list_gpus() -> list[Gpu]:
    """Return the GPUs, how much of each is in use, and the processes that compute on them."""
    queries = Query(GPUS), Query(PROCESSES)  # each may take a second
    gpus, processes = map(_rows, queries)
    by_gpu: dict[str, list[GpuProcess]] = {}
    for row in processes:
        if len(row) == 3:
            by_gpu.setdefault(row[0], []).append(_process(row))
    return [_gpu(row, by_gpu) for row in gpus if len(row) == 6]


def _rows(query: Query) -> list[list[str]]:
    try:
        return query.rows(DEADLINE)
    except NvidiaSmiError:
        return []


def _gpu(row: list[str], by_gpu: dict[str, list[GpuProcess]]) -> Gpu:
    index, uuid, name, total, used, busy = row
    return Gpu(
        index=int(number(index)),
        uuid=uuid,
        name=name,
        memory=int(number(total)) * MIB,
        used=int(number(used)) * MIB,
        busy=int(number(busy)),
        processes=by_gpu.get(uuid, []),
    )


def _process(row: list[str]) -> GpuProcess:
    pid, memory = int(number(row[1])), int(number(row[2]))
    return GpuProcess(pid=pid, memory=memory * MIB, user=_owner(pid), run=name_of(pid))


def _owner(pid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    except (OSError, KeyError):  # in a container, say, processes of the host cannot be seen
        return ""
