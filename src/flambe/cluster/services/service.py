"""What flambe keeps running on the hosts of a cluster between runs, supervised and by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.remote.agent.protocol import RunStatus, StartRequest, StopRequest

STOP_SECONDS = 120.0


def name_of(cluster: str, service: str) -> str:
    """Return a service's name for supervisors; the run of a cluster has the name of the cluster."""
    return f"{cluster}.{service}"


def names_of(cluster: str, runs: Iterable[str]) -> list[str]:
    """Return those names of supervised processes that are of a cluster: its run, its services."""
    return [name for name in runs if name == cluster or name.startswith(f"{cluster}.")]


def variables(cluster: ClusterContext, host: ClusterHost) -> dict[str, str]:
    """Return the environment variables of everything that flambe runs on a host."""
    return {
        **({"PATH": host.login_path} if host.login_path else {}),
        "FLAMBE_HOME": host.path(cluster.remote_dir),
        "FLAMBE_HOST": host.machine.name,
        "PYTHONNOUSERSITE": "1",
        "PYTHONPATH": "",
        **proxy.variables(cluster),
    }


class Service:
    """One service of a cluster on one host, in the state that the host reported last.

    Parameters
    ----------
    cluster, host
        The cluster, and one of its hosts.
    name
        ``ray``, ``site`` or ``reaper``.
    """

    def __init__(self, cluster: ClusterContext, host: ClusterHost, name: str) -> None:
        self.cluster = cluster
        self.host = host
        self.name = name_of(cluster.name, name)

    @property
    def status(self) -> RunStatus | None:
        """What its supervisor reports; None if the host has no such service."""
        return self.host.report.runs.get(self.name)

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.status is not None and self.status.runs

    @property
    def about(self) -> Mapping[str, object]:
        """What decides how it runs, as it was noted at its start; empty unless it runs."""
        return self.status.about if self.status is not None and self.status.runs else {}

    def start_request(
        self, command: Sequence[str], about: Mapping[str, object], env: Mapping[str, str]
    ) -> StartRequest:
        """Return the request to the agent that starts it, and restarts it whenever it ends.

        Parameters
        ----------
        command
            The program and its arguments.
        about
            What decides how it runs: if that changes, it is started again.
        env
            Environment variables.
        """
        return StartRequest(
            name=self.name,
            command=list(command),
            folder=self.host.path(self.cluster.folder),
            env=dict(env),
            about=dict(about),
            keep=True,
        )

    def start(self, request: StartRequest) -> None:
        """Start it, unless it runs with the same ``about``."""
        if self.is_running:
            if self.about == request.about:
                return
            self.stop()
        self.host.report.runs[self.name] = self.host.agent.ask(request, repeat=False)

    def stop(self) -> None:
        """Stop it, with everything that it started."""
        self.host.agent.ask(StopRequest(self.name), deadline=STOP_SECONDS)
        self.host.report.runs.pop(self.name, None)
