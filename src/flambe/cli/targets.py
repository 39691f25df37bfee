"""The clusters that commands act on: read from a file, or remembered under a name."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from flambe.cli.results import COLOURS
from flambe.cli.terminal import console
from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.cluster_record import ClusterRecord
from flambe.cluster.instance_status import InstanceStatus
from flambe.cluster.local_state import ClusterFiles, recorded_clusters
from flambe.cluster.machine import ORCHESTRATOR, is_factory, order
from flambe.cluster.providers.local.local_cluster import LocalCluster
from flambe.cluster.providers.ssh import SSHCluster
from flambe.compile import Schema
from flambe.errors import ConfigError, FlambeError, Problem, did_you_mean, listed
from flambe.logging import redact
from flambe.logging.plain import plain
from flambe.remote.gather import outcomes
from flambe.runnable import Secrets


class ClusterDisplay:
    """Prints what happens on a cluster; a ClusterObserver."""

    def __init__(self) -> None:
        self.console = console()
        self.lock = threading.Lock()

    def note(self, text: str) -> None:
        """Print a message."""
        with self.lock:
            self.console.print(redact.hide(text), soft_wrap=True, style="dim")

    def host_line(self, host: str, text: str) -> None:
        """Print a line of output of a host, with its name in front."""
        colour = COLOURS[sum(host.encode()) % len(COLOURS)]
        line = Text.assemble((host, colour), (" | ", "dim"), plain(redact.hide(text)))
        with self.lock:
            self.console.print(line, soft_wrap=True)


def find_hosts(name: str, secrets: str | None = None) -> tuple[str, list[ClusterHost]]:
    """Return the name and the hosts of a cluster, given its file or its name.

    ``secrets`` is as in :func:`read_cluster`.

    Raises
    ------
    ConfigError
        If there is no such cluster.
    """
    target = read_status(name, secrets)
    return target.name, target.hosts


@dataclass(frozen=True)
class TargetStatus:
    """A cluster as its provider and this machine know it; its hosts were not asked.

    Attributes
    ----------
    name
        The name of the cluster.
    hosts
        Its hosts.
    instances
        The status of each host that the cluster created, by the name of the host.
    """

    name: str
    hosts: list[ClusterHost]
    instances: Mapping[str, InstanceStatus]


def read_status(name: str, secrets: str | None = None) -> TargetStatus:
    """Return a cluster, given its file or its name.

    Raises
    ------
    ConfigError
        If there is no such cluster.
    """
    path = name if os.path.isfile(name) else _file_of_created(name)
    if path:
        cluster = read_cluster(path, secrets)
        with user_errors(cluster):
            machines = cluster.find_machines()
            hosts = [ClusterHost(m, cluster.local, cluster.remote_dir) for m in machines]
            return TargetStatus(cluster.name, hosts, cluster.instance_statuses())
    files, record = ClusterFiles.of(name), read_record(name)
    hosts = [ClusterHost(machine, files, record.remote_dir) for machine in record.machines]
    return TargetStatus(files.name, hosts, {})


def resolve_names(
    name: str, hosts: Sequence[ClusterHost], host_name: str | None
) -> list[ClusterHost]:
    """Return hosts under the names that they have on the cluster, if one is selected by name.

    The file alone does not say which factory is which: hosts that this machine has no record of
    are asked.
    """
    records = [host.files.recall() for host in hosts[:1]]
    recorded = {machine.private for record in records for machine in record.machines}
    unrecorded = [
        host
        for host in hosts
        if host.machine.private not in recorded
        and not (host.machine.identity or host.machine.host_keys)
    ]
    if not unrecorded or not is_factory(host_name):
        return list(hosts)

    def ask(host: ClusterHost) -> None:
        host.connect()
        host.refresh(name)

    outcomes(ask, hosts)  # the command itself reports hosts that do not answer
    return sorted(hosts, key=lambda host: order(host.machine.name))


def read_record(name: str) -> ClusterRecord:
    """Return what this machine remembers of a cluster.

    Raises
    ------
    ConfigError
        If it was not used from this machine.
    """
    record = ClusterFiles.of(name).recall()
    if not record.is_empty:
        return record
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        raise ConfigError(f"no such file: {name}")
    raise ConfigError(
        Problem(
            f"no cluster {name!r} was used from this machine",
            hint=did_you_mean(name, recorded_clusters()) or "give the file that describes it",
        )
    )


def _file_of_created(name: str) -> str:
    """Return the file of a cluster that creates its hosts: it may have other hosts by now."""
    record = ClusterFiles.of(name).recall()
    is_created = record.kind != SSHCluster.__name__
    return record.file if is_created and os.path.isfile(record.file) else ""


@contextlib.contextmanager
def running_hosts(
    target: str, secrets: str | None = None
) -> Iterator[tuple[str, list[ClusterHost]]]:
    """Yield the name and the hosts of a cluster; a LocalCluster that is off is started meanwhile.

    Raises
    ------
    ConfigError
        If there is no such cluster.
    """
    name, hosts = find_hosts(target, secrets)
    path = target if os.path.isfile(target) else _file_of_created(target)
    has_orchestrator = any(host.is_orchestrator for host in hosts)
    cluster = read_cluster(path, secrets) if path and not has_orchestrator else None
    if not isinstance(cluster, LocalCluster):
        yield name, hosts
        return
    machines = cluster.create_machines(cluster.find_machines())
    try:
        yield name, [ClusterHost(m, cluster.local, cluster.remote_dir) for m in machines]
    finally:
        cluster.remove_machines()


@contextlib.contextmanager
def user_errors(cluster: Cluster) -> Iterator[None]:
    """Turn an exception from the code of a user's own cluster class into an error that names it."""
    from flambe.cli.exit_handling import disk_error
    from flambe.compile.build import run_error

    try:
        yield
    except (FlambeError, BrokenPipeError):
        raise
    except Exception as error:
        raise disk_error(error) or run_error(cluster, error) from error


def read_cluster(path: str, secrets: str | None = None) -> Cluster:
    """Read the file of a cluster and its secrets.

    Parameters
    ----------
    path
        The file, or the name of a cluster used from this machine.
    secrets
        The file of secrets; by default the one that the cluster was created with, else
        ``~/.flambe/secrets.ini``.

    Raises
    ------
    ConfigError
        If the file is wrong, or does not describe a cluster.
    """
    from flambe.compile.build import outlined
    from flambe.compile.checks.calls import check
    from flambe.compile.reader.document import read_file

    if not os.path.isfile(path):
        file = read_record(path).file
        if not os.path.isfile(file):
            origin = file or "it was created in Python"
            text = f"the file of the cluster {path!r} no longer exists: {origin}"
            raise ConfigError(Problem(text, hint="give the file that describes it"))
        path = file
    document = read_file(path)
    check(document)
    document.raise_problems()
    root = document.root
    target = root.resolve() if isinstance(root, Schema) else None
    if not (isinstance(target, type) and issubclass(target, Cluster)):
        actual = f"!{root.tag}" if isinstance(root, Schema) else "a plain value"
        document.problem(f"expected a cluster, not {actual}", (), "for example !SSHCluster")
        document.raise_problems()
    cluster = outlined(root)
    assert isinstance(cluster, Cluster)
    cluster.config = _read_secrets(cluster, secrets)
    with user_errors(cluster):
        cluster.parse()
    return cluster


def _read_secrets(cluster: Cluster, file: str | None) -> Secrets:
    """Return the secrets of a cluster; see :func:`read_cluster`."""
    recorded = cluster.local.recall().secrets
    if file is None and os.path.isfile(recorded):
        file = recorded
    secrets = Secrets.read(Path(file) if file else None)
    if redact.values():
        redact.guard_streams()
    return secrets


def select_host(hosts: Sequence[ClusterHost], selector: str | None = None) -> ClusterHost:
    """Return a host by its name or address; by default the orchestrator.

    Raises
    ------
    ConfigError
        If there is no such host, or the cluster is not running.
    """
    _require_hosts(hosts)
    selector = selector or ORCHESTRATOR
    for host in hosts:
        machine = host.machine
        if selector in (machine.name, str(machine.address), str(machine.private)):
            return host
    names = [host.machine.name for host in hosts]
    raise ConfigError(Problem(f"no host {selector!r}", hint=f"the hosts: {listed(names)}"))


def select_hosts(
    hosts: Sequence[ClusterHost], selector: str | None, *, all_hosts: bool
) -> list[ClusterHost]:
    """Return all hosts, or the one that :func:`select_host` returns."""
    _require_hosts(hosts)
    return list(hosts) if all_hosts else [select_host(hosts, selector)]


def _require_hosts(hosts: Sequence[ClusterHost]) -> None:
    if not hosts:
        hint = "flambe FILE, with the file that describes it, starts them"
        raise ConfigError(Problem("the hosts of this cluster are not running", hint=hint))
