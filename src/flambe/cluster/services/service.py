"""What flambe keeps running on the hosts of a cluster between runs: named and supervised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy

RUNNING = "running"


def name_of(cluster: str, service: str) -> str:
    """Return the name that supervisors know a service of a cluster by; runs have the cluster's."""
    return f"{cluster}.{service}"


def of(cluster: str, runs: Mapping[str, Any]) -> list[str]:
    """Return the names of the run of a cluster and of its services, as far as a host has them."""
    return [name for name in runs if name == cluster or name.startswith(f"{cluster}.")]


def variables(cluster: ClusterContext, host: ClusterHost) -> dict[str, str]:
    """Return the environment variables of all that flambe runs on a host."""
    return {
        **({"PATH": host.login_path} if host.login_path else {}),
        "FLAMBE_HOME": host.path(cluster.remote_dir),
        "FLAMBE_HOST": host.machine.name,
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": "",
        **proxy.variables(cluster),
    }


class Service:
    """One service of a cluster on one host.

    Parameters
    ----------
    cluster, host
        Where.
    name
        ``ray``, ``site``.
    """

    def __init__(self, cluster: ClusterContext, host: ClusterHost, name: str) -> None:
        self.cluster = cluster
        self.host = host
        self.name = name_of(cluster.name, name)

    @property
    def status(self) -> dict[str, Any]:
        """What the host told of it last; empty if it is not known there."""
        return dict(self.host.report["runs"].get(self.name, {}))

    @property
    def runs(self) -> bool:
        """Whether it ran when the host was looked at last."""
        return self.status.get("state") == RUNNING

    def request(
        self, command: Sequence[str], about: Mapping[str, Any], env: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return what the agent is asked for to start it, and again whenever it ends."""
        return {
            "name": self.name,
            "command": list(command),
            "folder": self.host.path(self.cluster.folder),
            "env": dict(env),
            "about": dict(about),
            "keep": True,
        }

    def start(self, request: Mapping[str, Any]) -> None:
        """Start it, or leave it as it is where it runs with the same ``about``."""
        if self.runs:
            if self.status["about"] == request["about"]:
                return
            self.stop()
        found = self.host.agent.call("start", repeat=False, **request)
        self.host.report["runs"][self.name] = found

    def stop(self) -> None:
        """Stop it, and all that it started."""
        self.host.agent.call("stop", name=self.name, deadline=120.0)
        self.host.report["runs"].pop(self.name, None)
