"""Clusters for tests: of this machine's own processes, and of real hosts where root makes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import Cluster, LocalCluster, SSHCluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file
from flambe.errors import ConfigError
from flambe.remote import Connection, ssh_master
from tests.metal import Metal
from tests.metal.conftest import lent
from tests.metal.equipped import installed  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True)
def _connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test opened: masters outlive those who start them."""
    opened: dict[Path, Connection] = {}
    original = Connection.open

    def remember(self: Connection, *arguments: Any, **more: Any) -> None:
        opened[self.socket] = self
        original(self, *arguments, **more)

    monkeypatch.setattr(Connection, "open", remember)
    monkeypatch.setattr(ssh_master, "PERSIST", 20)
    yield
    for one in opened.values():
        one.close()


@pytest.fixture(scope="module")
def metal(request: pytest.FixtureRequest) -> Iterator[Metal]:
    """Lend three real hosts to a module; with environments, where it sets ``EQUIPPED = True``."""
    equipped = getattr(request.module, "EQUIPPED", False)
    environments = request.getfixturevalue("installed") if equipped else None
    with lent(3, layer=environments) as hosts:
        yield hosts


def ssh_cluster(metal: Metal, **more: Any) -> SSHCluster:
    """Return a cluster of real hosts."""
    first, *others = [host.address for host in metal.hosts if host.alive]
    settings: dict[str, Any] = {"key": str(metal.key), "username": metal.hosts[0].user, **more}
    return SSHCluster("metal", first, others, **settings)


def read(file: Path) -> None:
    """Read the file of a cluster as far as it is read before anything is touched.

    Raises
    ------
    ConfigError
        If something is wrong with it.
    """
    document = read_file(str(file))
    check(document)
    document.raise_problems()


def said_of(folder: Path, keywords: str) -> str:
    """Return what is said of a file of a cluster with these keywords, which are wrong."""
    file = folder / "cluster.yaml"
    file.write_text(f"!SSHCluster {{name: a, orchestrator_ip: h, {keywords}}}\n")
    with pytest.raises(ConfigError) as raised:
        read(file)
    return str(raised.value)


def connected(cluster: Cluster) -> list[ClusterHost]:
    """Return the hosts of a cluster with a connection each, and nothing else done to them."""
    machines = cluster.create_machines(cluster.find_machines())
    members = [ClusterHost(machine, cluster.local, cluster.remote_dir) for machine in machines]
    for member in members:
        member.connect()
    cluster.hosts = tuple(members)
    return members


@pytest.fixture
def local() -> Iterator[Callable[..., LocalCluster]]:
    """Make clusters of this machine's own processes."""
    with contextlib.ExitStack() as undo:

        def make(factories: int = 1, **more: Any) -> LocalCluster:
            cluster = LocalCluster(f"local-{os.getpid()}", factories, **more)
            undo.callback(cluster.remove_machines)
            return cluster

        yield make


def kinds() -> Sequence[Any]:
    return [
        pytest.param("local", id="local", marks=[pytest.mark.integration]),
        pytest.param("metal", id="metal", marks=[pytest.mark.root]),
    ]


@pytest.fixture(params=kinds())
def members(request: pytest.FixtureRequest, local: Any) -> list[ClusterHost]:
    """Give an orchestrator and a factory: on this machine, and on real hosts."""
    if request.param == "local":
        return connected(local(1))
    return connected(ssh_cluster(request.getfixturevalue("metal")))[:2]
