"""Containers on the hosts of a cluster: what a ClusterRunnable has as ``cluster.docker``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from flambe._grammar import as_argv, as_list
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.services.docker import installation
from flambe.cluster.services.docker.container import Container, ContainerSpec
from flambe.cluster.services.docker.docker_client import LONG_SECONDS, DockerError
from flambe.cluster.services.docker.host_containers import HostContainers
from flambe.errors import RemoteError
from flambe.remote import each

# An alias: in the class below, ``list`` is a method.
Containers: TypeAlias = list[Container]


class Docker:
    """Starts, finds and stops containers. It touches only those that the cluster started.

    They have labels by which they are found again: ``flambe.cluster``, the name of the cluster;
    ``flambe.home``, the home of the user there, which tells apart users who share a host; and
    ``flambe.name``.

    Parameters
    ----------
    cluster
        The cluster, provisioned.
    """

    def __init__(self, cluster: ClusterContext) -> None:
        self.cluster = cluster

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        hosts: Sequence[ClusterHost] | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        ports: Mapping[int | str, int | str] | None = None,
        volumes: Mapping[str, str] | None = None,
        gpus: bool = False,
        options: Sequence[str] = (),
        detach: bool = True,
        deadline: float = LONG_SECONDS,
    ) -> Containers:
        """Start a container on each host; if that fails on one host, on none.

        Parameters
        ----------
        image
            Downloaded if the host does not have it.
        command
            The program and its arguments; the image's own by default.
        hosts
            Only the orchestrator by default.
        name
            Its name, unique among the containers of the host.
        env
            Environment variables, each of one line. They may be secrets: they appear in no command
            line and in no file. Users who may use Docker on the host can see them.
        ports
            Port of the host → port of the container. ``"127.0.0.1:8080"`` serves the host alone;
            a number serves everyone who reaches the host.
        volumes
            Path of the host → path in the container. Relative ones start at the home of the user.
        gpus
            Whether it sees the GPUs of the host.
        options
            More options of ``docker create``, such as ``["--ipc=host"]``.
        detach
            Whether it is left running. If not, it is waited for, and removed.
        deadline
            Seconds after which a container that is waited for is killed.

        Returns
        -------
        list of Container
            One of each host; with their output if they were waited for.

        Raises
        ------
        CommandError
            If it cannot be started, or was waited for and ends with an exit code other than 0.
        RemoteError
            If Docker cannot be used on a host: why, and how to fix it.
        """
        example = as_argv(command)
        command = as_list(command, "command takes the program and its arguments", example)
        options = as_list(options, "options takes a list of options")
        spec = ContainerSpec(image, command, name, env, ports, volumes, gpus, options)
        created: dict[HostContainers, Container] = {}

        def start(host: ClusterHost) -> Container:
            containers = self._on(host)
            containers.pull(image)
            created[containers] = containers.create(spec)
            if detach:
                return containers.start(created[containers])
            return containers.wait(created[containers], command, deadline)

        default = [self.cluster.orchestrator]
        try:
            return each(start, default if hosts is None else self.cluster.selected(hosts))
        except BaseException:
            # Not in start(): the threads of an interrupted fan-out can run nothing on a host. Shown
            # by test_docker.py::TestContainers::test_one_that_is_interrupted_is_removed.
            each(lambda containers: containers.discard(created[containers]), list(created))
            raise

    def list(
        self, hosts: Sequence[ClusterHost] | None = None, *, name: str | None = None
    ) -> Containers:
        """Return the containers that the cluster started, including those that ended.

        Parameters
        ----------
        hosts
            By default all hosts on which Docker can be used; on those that are named, it must be.
        name
            Only containers of this name.
        """

        def list_host(host: ClusterHost) -> Containers:
            try:
                return self._on(host).list(name)
            except DockerError:
                if hosts is None:
                    return []
                raise

        lists = each(list_host, self.cluster.selected(hosts))
        return [container for containers in lists for container in containers]

    def stop(
        self,
        containers: Iterable[Container] | None = None,
        *,
        name: str | None = None,
        hosts: Sequence[ClusterHost] | None = None,
    ) -> Containers:
        """Stop and remove containers of the cluster: the given ones, those of a name, or all.

        Raises
        ------
        RemoteError
            If one of the given containers is not the cluster's; then none is stopped.
        """
        if containers is None:
            targets = self.list(hosts, name=name)
        else:
            by_host = self._by_host(containers)
            own = each(lambda host: self._on(host).select_own(by_host[host]), list(by_host))
            targets = [container for group in own for container in group]
        doomed = self._by_host(targets)
        each(lambda host: self._on(host).stop(doomed[host]), list(doomed))
        return targets

    def remove_all(self) -> Containers:
        """Stop and remove all containers of the cluster, and return them."""
        return self.stop()

    def logs(self, container: Container, tail: int | None = None) -> str:
        """Return the output of a container, both streams together: its last lines, or all."""
        (host,) = self._by_host([container])
        return self._on(host).logs(container, tail)

    def install(self, hosts: Sequence[ClusterHost] | None = None) -> None:
        """Install Docker on Debian and Ubuntu hosts (all by default) where it cannot be used.

        This needs a user who may use sudo without a password. The user is added to the group
        ``docker``, which takes effect at the next login: the connection to the host is closed, with
        all that uses it.

        Raises
        ------
        RemoteError
            If Docker cannot be used after that: why, and how to fix it.
        """
        each(lambda host: installation.install(self.cluster, host), self.cluster.selected(hosts))

    def _on(self, host: ClusterHost) -> HostContainers:
        return HostContainers(self.cluster, host)

    def _by_host(self, containers: Iterable[Container]) -> dict[ClusterHost, Containers]:
        hosts = {host.machine.name: host for host in self.cluster.selected(None)}
        groups: dict[ClusterHost, Containers] = {}
        for container in containers:
            if container.host not in hosts:
                raise RemoteError(container.host, f"not a host of cluster {self.cluster.name}")
            groups.setdefault(hosts[container.host], []).append(container)
        return groups
