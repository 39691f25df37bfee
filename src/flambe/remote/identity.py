"""The identity of a process across machines, which names and process ids do not give.

Containers and laptops may have the same names, and the same process ids. So a machine has a random
id in flambe's home, and its processes are identified by the boot of the machine, by the process
namespace, and by when they were started.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from flambe._files import private_folder, write_private_once
from flambe.logging.console import home

MACHINE = "machine-id"  # a file of flambe's home


def of_process(pid: int) -> dict[str, str]:
    """Return the identity of a process of this machine; what cannot be read is empty."""
    return {
        "machine": _machine(home()),
        "boot": boot(),
        "namespace": _link("/proc/self/ns/pid"),
        "pid": str(pid),
        "begun": _begun(pid),
    }


def is_here(other: Mapping[str, str]) -> bool:
    """Whether a process is visible from here: same machine, same boot, same namespace."""
    mine = of_process(os.getpid())
    names = ["machine", "boot"] + (["namespace"] if sys.platform == "linux" else [])
    return all(mine[name] and mine[name] == other.get(name) for name in names)


def is_gone(other: Mapping[str, str]) -> bool:
    """Whether a process that would be visible from here no longer exists.

    Of all other processes that is unknown: what they hold expires.
    """
    if not is_here(other) or not other.get("begun") or not other.get("pid", "").isdigit():
        return False
    return _begun(int(other["pid"])) != other["begun"]


@functools.cache
def boot() -> str:
    """Return what changes with each boot of this machine; empty if it is unknown."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return _output(["sysctl", "-n", "kern.bootsessionuuid"])


@functools.cache
def _machine(folder: Path) -> str:
    """Return the random id of this machine, made at first use; empty if it cannot be written."""
    path = folder / MACHINE
    with contextlib.suppress(OSError):
        if not path.exists():
            private_folder(folder)
            write_private_once(path, secrets.token_hex(16))
        return path.read_text(encoding="ascii").strip()
    return ""


def _begun(pid: int) -> str:
    """Return when a process was started; empty if there is none."""
    if sys.platform != "linux":
        return _output(["ps", "-o", "lstart=", "-p", str(pid)])
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *others = fields.rpartition(")")[2].split()
        return "" if state in "ZX" else others[18]
    return ""


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _output(command: list[str]) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""
