"""What a step or a service needs to know of a cluster: its hosts, and what its file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from flambe._grammar import as_list
from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.local_state import ClusterFiles, ClusterOrigin
from flambe.cluster.observer import ClusterObserver
from flambe.cluster.options import EnvironmentOptions

#: The least that a run may go without progress, in seconds, before its hosts count as idle.
STALL_SECONDS = 3600.0


@dataclass(frozen=True)
class ClusterContext:
    """One cluster, as provisioning, environments and services see it.

    It never changes: a step that finds out more returns another one (``dataclasses.replace``).

    Attributes
    ----------
    name
        The name of the cluster.
    local
        The files that this machine keeps of it.
    observer
        Notified of what happens.
    origin
        Where it is described.
    hosts
        Its hosts, the orchestrator first; empty until they are connected.
    remote_dir
        flambe's folder on the hosts.
    environment
        How hosts get their Python packages.
    environment_name
        The environment of the hosts; empty until they have one.
    setup_cmds
        The setup commands.
    gpus
        Which GPUs may be used: all, or those that nobody else uses.
    orchestrator_works
        Whether the orchestrator runs variants too.
    is_reaped
        Whether hosts, or the services on them, end when they are idle.
    stall_timeout
        How many seconds a run may go without progress before its hosts count as idle.
    """

    name: str
    local: ClusterFiles
    observer: ClusterObserver
    origin: ClusterOrigin = field(default_factory=ClusterOrigin)
    hosts: tuple[ClusterHost, ...] = ()
    remote_dir: str = ".flambe"
    environment: EnvironmentOptions = field(default_factory=EnvironmentOptions)
    environment_name: str = ""
    setup_cmds: tuple[str, ...] = ()
    gpus: Literal["all", "free"] = "all"
    orchestrator_works: bool = False
    is_reaped: bool = False
    stall_timeout: float = STALL_SECONDS

    # -- hosts --------------------------------------------------------------------------------

    @property
    def orchestrator(self) -> ClusterHost:
        """The host that runs jobs and keeps their results.

        Raises
        ------
        RuntimeError
            If the cluster was not provisioned yet.
        """
        return self._provisioned()[0]

    @property
    def factories(self) -> list[ClusterHost]:
        """The hosts that do the heavy work."""
        return list(self._provisioned()[1:])

    @property
    def workers(self) -> list[ClusterHost]:
        """The hosts that run variants: the factories, and the orchestrator if it works too."""
        return list(self._provisioned()[0 if self.orchestrator_works else 1 :])

    def _provisioned(self) -> tuple[ClusterHost, ...]:
        if not self.hosts:
            raise RuntimeError(f"cluster {self.name} is not ready: run it first")
        return self.hosts

    def selected(self, hosts: Sequence[ClusterHost] | None) -> list[ClusterHost]:
        """Return the hosts that a caller names; all of them by default."""
        if hosts is None:
            return list(self._provisioned())
        example = "hosts=[cluster.orchestrator]"
        return as_list(hosts, "hosts takes a list of the cluster's hosts", example)

    # -- paths --------------------------------------------------------------------------------

    @property
    def folder(self) -> str:
        """The folder of the cluster on its hosts."""
        return layout.of(self.remote_dir, self.name)

    @property
    def work(self) -> str:
        """The working directory of jobs on the orchestrator: results are below it."""
        return self.orchestrator.path(f"{self.folder}/work")

    @property
    def key_path(self) -> str:
        """The private key of the cluster on its hosts."""
        return layout.key_path(self.orchestrator.home, self.name)

    @property
    def ssh_config(self) -> str:
        """The configuration with which ssh on the orchestrator reaches the other hosts."""
        return f"{self.key_path}.config"

    def ssh_alias(self, host: ClusterHost) -> str:
        """Return the name of a host in that configuration."""
        return layout.ssh_alias(self.name, host.machine.name)

    def python(self, host: ClusterHost) -> str:
        """Return the interpreter of a host that has flambe and the extensions."""
        return host.path(layout.python(self.remote_dir, self.environment_name))
