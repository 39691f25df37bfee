"""What a host is: read, never changed."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from typing import Any

from flambe.remote.agent.files import boot_id, read_text


def gather(root: str) -> dict[str, Any]:
    """Return the facts of this host; sizes are in bytes."""
    place = root if os.path.isdir(root) else os.path.expanduser("~")
    disk = shutil.disk_usage(place)
    return {
        "hostname": socket.gethostname(),
        "user": _user(),
        "home": os.path.expanduser("~"),
        "boot": boot_id(),
        "cpus": _cpus(),
        "memory": _memory(),
        "disk": disk.total,
        "disk_free": disk.free,
        "gpus": gpus(),
        "python": platform.python_version(),
        "python_path": sys.executable,
        "platform": f"{sys.platform}-{platform.machine()}",
        "libc": "-".join(platform.libc_ver()),
        "system": _system(),
        "docker": shutil.which("docker") or "",
        "pip": shutil.which("pip") or "",
        "load": os.getloadavg()[0],
    }


def _cpus() -> int:
    if os.environ.get("FLAMBE_CPUS"):  # a host that shares its machine with others
        return int(os.environ["FLAMBE_CPUS"])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _memory() -> int:
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _system() -> str:
    for line in read_text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return str(line.partition("=")[2].strip('"'))
    return platform.system()


def gpus() -> list[dict[str, Any]]:
    """Return the GPUs: name, memory, memory in use, and how busy each is in percent."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,memory.total,memory.used,utilization.gpu"
    try:
        said = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=True,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4:
            name, total, used, busy = parts
            found.append(
                {
                    "name": name,
                    "memory": _number(total) * 1024**2,
                    "used": _number(used) * 1024**2,
                    "busy": _number(busy),
                }
            )
    return found


def _number(text: str) -> int:
    try:
        return int(float(text))
    except ValueError:  # "[N/A]"
        return 0
