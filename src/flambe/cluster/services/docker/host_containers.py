"""The containers of a cluster on one of its hosts."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.services.docker.container import Container, ContainerSpec
from flambe.cluster.services.docker.docker_client import LONG_SECONDS, DockerClient, checked
from flambe.errors import RemoteError

# An alias: in the class below, ``list`` is a method.
Containers: TypeAlias = list[Container]

# Seconds to stop all containers of a host: each has 10 to end by itself.
STOP_SECONDS = 120.0

_ROW = '{{.ID}}\t{{.Names}}\t{{.Image}}\t{{.State}}\t{{.Status}}\t{{.Label "flambe.name"}}'
# A pipe: sshd may pass a socket as standard input, which cannot be opened by a name. Shown by
# test_docker.py::test_no_command_line_and_no_file_shows_the_environment.
_CREATE = 'cat | docker create --env-file /dev/stdin "$@"'


class HostContainers:
    """The containers of a cluster on one host, which its labels tell from all others.

    Parameters
    ----------
    cluster, host
        The cluster, and one of its hosts.
    """

    def __init__(self, cluster: ClusterContext, host: ClusterHost) -> None:
        self.cluster = cluster
        self.host = host
        self.client = DockerClient(host)

    @cached_property
    def home(self) -> str:
        """The home of the user on the host."""
        print_home = ["sh", "-c", 'printf %s "$HOME"']
        return self.host.home or self.host.run(print_home, repeat=True).stdout

    @property
    def labels(self) -> list[str]:
        """The labels of all containers of the cluster on the host."""
        return [f"flambe.cluster={self.cluster.name}", f"flambe.home={self.home}"]

    # -- finding ------------------------------------------------------------------------------

    def list(self, name: str | None = None, *filters: str) -> Containers:
        """Return the containers of the cluster; only those of a name, or that pass filters."""
        labels = [*self.labels, *([] if name is None else [f"flambe.name={name}"])]
        options = [f"--filter=label={label}" for label in labels]
        options += [f"--filter={text}" for text in filters]
        options += ["--all", "--no-trunc", f"--format={_ROW}"]
        rows = self.client.run("ps", *options, repeat=True).stdout.splitlines()
        return [self._parse_row(row) for row in rows]

    def _parse_row(self, row: str) -> Container:
        identifier, names, image, state, status, name = row.split("\t")
        exited = re.match(r"Exited (\(\d+\))", status)
        return Container(
            self.host.machine.name,
            identifier,
            name or names.partition(",")[0],
            image,
            f"exited {exited[1]}" if exited else state,
        )

    def select_own(self, containers: Sequence[Container]) -> Containers:
        """Return those of some containers that still exist.

        Raises
        ------
        RemoteError
            If one of them is not the cluster's.
        """
        own = {container.id for container in self.list()}
        existing = [container for container in containers if self._exists(container)]
        for container in existing:
            if container.id not in own:
                raise RemoteError(
                    self.host.name,
                    f"the container {container.name} ({container.id[:12]}) was not started by "
                    f"cluster {self.cluster.name}: it is left alone",
                )
        return existing

    def _exists(self, container: Container) -> bool:
        arguments = ("container", "inspect", "--format={{.Id}}", container.id)
        return self.client.attempt(*arguments, repeat=True).code == 0

    def _refresh(self, container: Container) -> Container:
        """Return a container in its present state."""
        matches = self.list(None, f"id={container.id}")
        return matches[0] if matches else replace(container, status="removed")

    # -- the life of a container --------------------------------------------------------------

    def pull(self, image: str) -> None:
        """Download an image, unless the host has it."""
        arguments = ("image", "inspect", "--format={{.Id}}", image)
        if self.client.attempt(*arguments, repeat=True).code:
            self.client.run(
                "pull", image, deadline=LONG_SECONDS, on_line=self._forward_line, repeat=True
            )

    def _forward_line(self, _: str, line: str) -> None:
        self.cluster.observer.host_line(self.host.machine.name, line)

    def create(self, spec: ContainerSpec) -> Container:
        """Create a container without starting it."""
        # The labels come last, so that no option of the caller replaces them.
        labels = [f"--label={label}" for label in self.labels]
        arguments = [*spec.flags(self.home), *labels, spec.image, *spec.command]
        result = self.host.run(
            ["sh", "-c", _CREATE, "sh", *arguments],
            content=spec.env_file,
            check=False,
            shown=shlex.join(["docker", "create", *arguments]),
        )
        identifier = checked(self.client.usable(result)).stdout.split()[-1]
        host = self.host.machine.name
        return self._refresh(Container(host, identifier, identifier[:12], spec.image, ""))

    def start(self, container: Container) -> Container:
        """Start a container that was created."""
        self.client.run("start", container.id)
        return self._refresh(container)

    def wait(self, container: Container, command: Sequence[str], deadline: float) -> Container:
        """Start a container that was created, wait for its end, and remove it."""
        # Not by the client: the exit code and the output are the container's own.
        result = self.host.run(
            ["docker", "start", "--attach", container.id],
            deadline=deadline,
            check=False,
            shown=shlex.join(["docker", "run", container.image, *command]),
        )
        output = checked(result).stdout
        self.discard(container)
        return replace(container, status="removed", output=output)

    def discard(self, container: Container) -> None:
        """Remove a container that ended or failed, if possible."""
        with contextlib.suppress(RemoteError):
            self.client.run("rm", "--force", "--volumes", container.id)

    def stop(self, containers: Sequence[Container]) -> None:
        """Stop and remove containers; some may no longer exist."""
        ids = [container.id for container in containers]
        self.client.attempt("stop", *ids, deadline=STOP_SECONDS, repeat=True)
        arguments = ("rm", "--force", "--volumes", *ids)
        removal = self.client.attempt(*arguments, deadline=STOP_SECONDS, repeat=True)
        if removal.code and any(self._exists(container) for container in containers):
            removal.checked()

    def logs(self, container: Container, tail: int | None) -> str:
        """Return the output of a container, both streams together."""
        arguments = ["logs", f"--tail={'all' if tail is None else tail}", container.id]
        script = ["sh", "-c", 'exec docker "$@" 2>&1', "sh", *arguments]
        title = shlex.join(["docker", *arguments])
        result = self.host.run(script, check=False, repeat=True, shown=title)
        if result.code:
            result = replace(result, stderr=result.stdout)  # Docker's own errors are there too
        return self.client.usable(result).checked().stdout
