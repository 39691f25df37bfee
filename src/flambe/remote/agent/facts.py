"""The facts of a host: read, never changed."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys

from flambe.remote.agent import gpus
from flambe.remote.agent.files import boot_id, read_text
from flambe.remote.agent.protocol import Facts


def gather(root: str) -> Facts:
    """Return the facts of this host."""
    disk = shutil.disk_usage(root if os.path.isdir(root) else os.path.expanduser("~"))
    return Facts(
        hostname=socket.gethostname(),
        user=_user(),
        home=os.path.expanduser("~"),
        boot=boot_id(),
        cpus=_cpus(),
        memory=_memory(),
        disk=disk.total,
        disk_free=disk.free,
        gpus=gpus.list_gpus(),
        python=platform.python_version(),
        python_path=sys.executable,
        platform=f"{sys.platform}-{platform.machine()}",
        libc="-".join(platform.libc_ver()),
        system=_system(),
        docker=shutil.which("docker") or "",
        pip=shutil.which("pip") or "",
        rsync=_rsync(),
        load=os.getloadavg()[0],
    )


def _cpus() -> int:
    if os.environ.get("FLAMBE_CPUS"):  # a host that shares its machine with others
        return int(os.environ["FLAMBE_CPUS"])
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _rsync() -> str:
    try:
        done = subprocess.run(
            ["rsync", "--version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").partition("\n")[0]


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
