"""``ray start --block`` with only the parts of Ray that flambe uses, run by Ray's own Python.

Ray ends a whole node when any of its helpers ends: the server of its client, its autoscaler, its
dashboard, or the agent that reports to the dashboard. flambe uses none of them. Those that can be
left out are left out; the others are restarted, and the node lives as long as its GCS and its
raylet.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from typing import Callable, Protocol  # noqa: UP035 (evaluated by Python 3.8)

#: The processes that a node cannot do without, by Ray's names.
ESSENTIAL = ("gcs_server", "raylet")
# The commands in the command line of a raylet by which it starts what it ends with.
AGENTS = ("--dashboard_agent_command=", "--runtime_env_agent_command=")
# The agent, as it was called: an archive of Python.
_ARCHIVE = os.path.abspath(sys.argv[0])
PAUSE_FIRST, PAUSE_MOST = 0.5, 30.0  # seconds until an agent is started again


def main(arguments: list[str]) -> None:
    """Run ``ray`` with these arguments."""
    del sys.path[0]  # this archive
    node = importlib.import_module("ray._private.node").Node
    services = vars(importlib.import_module("ray._private.services"))
    node.start_ray_client_server = _nothing
    node.start_monitor = _nothing
    node.start_api_server = _no_dashboard
    node.dead_processes = _dead_of(node.dead_processes)
    services["start_ray_process"] = _with_keepers(services["start_ray_process"])
    sys.argv = ["ray", *arguments]
    importlib.import_module("ray.scripts.scripts").main()


class _Node(Protocol):
    """A node of Ray, as far as it is changed here."""

    _webui_url: str | None


_Processes = Callable[[_Node], "list[tuple[str, subprocess.Popen[bytes]]]"]


def _nothing(self: _Node) -> None:
    """Start nothing."""


def _no_dashboard(self: _Node, **options: object) -> None:
    self._webui_url = None


def _dead_of(dead_processes: _Processes) -> _Processes:
    """Return what names the processes that ended; of those a node needs, none ended in order."""

    def essential(self: _Node) -> list[tuple[str, subprocess.Popen[bytes]]]:
        dead = [entry for entry in dead_processes(self) if entry[0] in ESSENTIAL]
        for _, process in dead:
            process.returncode = process.returncode or 1
        return dead

    return essential


def _with_keepers(start: Callable[..., object]) -> Callable[..., object]:
    """Return what starts a process of Ray: the agents of a raylet are kept up beside it."""
    keeper = subprocess.list2cmdline([sys.executable, _ARCHIVE, "ray-keep"])

    def kept(part: str) -> str:
        for option in AGENTS:
            if part.startswith(option) and len(part) > len(option):
                return option + keeper + " " + part[len(option) :]
        return part

    def started(command: list[str], process_type: str, *args: object, **options: object) -> object:
        if process_type == "raylet":
            command = [kept(str(part)) for part in command]
        return start(command, process_type, *args, **options)

    return started


# -- beside a raylet ------------------------------------------------------------------------------


def keep(command: list[str]) -> int:
    """Run an agent of a raylet, and run it again when it ends, until the raylet ends."""
    raylet = int(os.environ.get("RAY_RAYLET_PID") or os.getppid())
    child = subprocess.Popen(command)

    def end(number: int, frame: object) -> None:
        child.terminate()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    pause, begun = PAUSE_FIRST, time.monotonic()
    while os.getppid() == raylet:
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            continue
        pause = PAUSE_FIRST if time.monotonic() - begun > PAUSE_MOST else min(pause * 2, PAUSE_MOST)
        time.sleep(pause)
        if os.getppid() == raylet:
            child, begun = subprocess.Popen(command), time.monotonic()
    child.terminate()
    return 0
