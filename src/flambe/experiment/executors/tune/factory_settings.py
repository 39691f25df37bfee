"""What a run on a cluster knows of its factories by environment variables, and a file they name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flambe.cluster.context import STALL_SECONDS
from flambe.cluster.services.ray_service import NODE_STARTS, STALL_TIMEOUT

#: How long a run waits for a factory when the last one is lost, in seconds.
ALONE, ALONE_SECONDS = "FLAMBE_FACTORIES_DEADLINE", 600.0
#: How long factories may take to join Ray when a run starts, in seconds.
JOIN, JOIN_SECONDS = "FLAMBE_JOIN_DEADLINE", 180.0


def alone_seconds() -> float:
    """Return how long a run waits for a factory when the last one is lost."""
    return float(os.environ.get(ALONE, ALONE_SECONDS))


def join_seconds() -> float:
    """Return how long factories may take to join Ray."""
    return float(os.environ.get(JOIN, JOIN_SECONDS))


def stall_seconds() -> float:
    """Return after how many seconds without progress the factories are no longer needed."""
    return float(os.environ.get(STALL_TIMEOUT, STALL_SECONDS))


@dataclass(frozen=True)
class NodeStart:
    """How the Ray node of one factory is started.

    Attributes
    ----------
    command
        Starts the node: the agent of the host, and its verb.
    content
        What the command reads from its standard input.
    log
        The log of the node on the factory, if it has one.
    """

    command: list[str]
    content: str = ""
    log: str = ""

    @property
    def lease_command(self) -> list[str]:
        """The command that takes a lease on the factory."""
        return [*self.command[:-1], "lease"]

    @classmethod
    def read(cls, value: object) -> NodeStart | None:
        """Read an entry of the file; None if it is not one."""
        if not isinstance(value, Mapping):
            return None
        command, content, log = (value.get(name) for name in ("command", "content", "log"))
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            return None
        return cls(
            command,
            content if isinstance(content, str) else "",
            log if isinstance(log, str) else "",
        )


def read_starts() -> dict[str, NodeStart]:
    """Return how the node of each factory is started now: factories may be added during a run."""
    try:
        entries = json.loads(Path(os.environ[NODE_STARTS]).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError):
        return {}
    if not isinstance(entries, dict):
        return {}
    starts = {name: NodeStart.read(entry) for name, entry in entries.items()}
    return {name: start for name, start in starts.items() if start is not None}
