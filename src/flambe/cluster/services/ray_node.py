"""The Ray node of one host, as its supervisor keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flambe.remote.agent.protocol import RunStatus

SERVICE = "ray"


@dataclass(frozen=True)
class RayNode:
    """What decides how the Ray node of a host runs.

    Attributes
    ----------
    name
        The name of the host in its cluster.
    environment
        The name of the environment that it runs in.
    head
        The address of the orchestrator.
    port
        The port of the head.
    token
        A digest of the token with which nodes join.
    address
        The address of the host.
    cpus
        The number of CPUs that it offers.
    gpus
        The GPUs that it offers, by UUID.
    path
        ``PATH`` of a login.
    """

    name: str
    environment: str
    head: str
    port: int
    token: str
    address: str
    cpus: int
    gpus: tuple[str, ...]
    path: str

    @classmethod
    def running(cls, status: RunStatus | None) -> RayNode | None:
        """Return the node that a supervisor runs, or None; what it does not report is empty.

        Parameters
        ----------
        status
            What the supervisor reports.
        """
        if status is None or not status.runs:
            return None
        values = status.about
        gpus = values.get("gpus")
        return cls(
            name=_text(values, "name") or _name_in_command(status.command),
            environment=_text(values, "environment"),
            head=_text(values, "head"),
            port=_integer(values, "port"),
            token=_text(values, "token"),
            address=_text(values, "address"),
            cpus=_integer(values, "cpus"),
            gpus=tuple(map(str, gpus)) if isinstance(gpus, list) else (),
            path=_text(values, "path"),
        )

    def to_about(self) -> dict[str, object]:
        """Return what its supervisor keeps: it is started again when that changes."""
        return {**vars(self), "gpus": list(self.gpus)}

    def joins_as(self, other: RayNode) -> bool:
        """Whether another node is part of the same Ray, in the same role."""
        return (self.name, self.address, self.port, self.token) == (
            other.name,
            other.address,
            other.port,
            other.token,
        )


def node_name(status: RunStatus | None) -> str:
    """Return the name under which the Ray node of a host runs; empty if none does.

    Parameters
    ----------
    status
        What its supervisor reports.
    """
    node = RayNode.running(status)
    return node.name if node is not None else ""


def _text(values: Mapping[str, object], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _integer(values: Mapping[str, object], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0


def _name_in_command(command: Sequence[str]) -> str:
    """Return the name of a node that an earlier version started: it is only in the command."""
    try:
        settings = json.loads(command[-1])
    except (IndexError, ValueError):
        return ""
    return _text(settings, "name") if isinstance(settings, dict) else ""
