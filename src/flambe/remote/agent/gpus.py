"""The GPUs of this host, and who uses them, as nvidia-smi reports."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from flambe.remote.agent.processes import name_of
from flambe.remote.agent.protocol import Gpu, GpuProcess

GPU = "--query-gpu=index,uuid,name,memory.total,memory.used,utilization.gpu"
PROCESS = "--query-compute-apps=gpu_uuid,pid,used_memory"
DEADLINE = 20  # seconds
MIB = 1024**2
_hung: list[Any] = []  # where a driver hangs, what asks it does not end, and is not waited for


def list_gpus() -> list[Gpu]:
    """Return the GPUs, how much of each is in use, and the processes that compute on them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    answers = [_start(program, query) for query in (GPU, PROCESS)]  # each may take a second
    gpus, processes = (_rows(answer) for answer in answers)
    using: dict[str, list[GpuProcess]] = {}
    for row in processes:
        if len(row) == 3:
            using.setdefault(row[0], []).append(_process(_number(row[1]), _number(row[2])))
    return [_gpu(row, using) for row in gpus if len(row) == 6]


def _gpu(row: list[str], using: dict[str, list[GpuProcess]]) -> Gpu:
    index, uuid, name, total, used, busy = row
    return Gpu(
        index=_number(index),
        uuid=uuid,
        name=name,
        memory=_number(total) * MIB,
        used=_number(used) * MIB,
        busy=_number(busy),
        processes=using.get(uuid, []),
    )


def _process(pid: int, memory: int) -> GpuProcess:
    return GpuProcess(pid=pid, memory=memory * MIB, user=_owner(pid), run=name_of(pid))


def _owner(pid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    except (OSError, KeyError):  # in a container, say, processes of the host cannot be seen
        return ""


def _start(program: str, query: str) -> Any:
    try:
        return subprocess.Popen(
            [program, query, "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def _rows(answer: Any) -> list[list[str]]:
    """Return the fields of each line; none where it failed."""
    if answer is None:
        return []
    try:
        said, _ = answer.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        answer.kill()
        _hung.append(answer)
        return []
    if answer.returncode:
        return []
    lines = said.decode(errors="replace").splitlines()
    return [[part.strip() for part in line.split(",")] for line in lines]


def _number(text: str) -> int:
    try:
        return int(float(text))
    except ValueError:  # "[N/A]"
        return 0
