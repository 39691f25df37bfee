"""The clusters that commands are about: read from a file, or known by name."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from flambe.cli.results_table import COLOURS
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
    """Shows what happens to a cluster; a ClusterObserver."""

    def __init__(self) -> None:
        self.console = console()
        self.lock = threading.Lock()

    def note(self, text: str) -> None:
        """Print a note."""
        with self.lock:
            self.console.print(redact.hide(text), soft_wrap=True, style="dim")

    def host_line(self, host: str, text: str) -> None:
        """Print a line that a command on a host said."""
        colour = COLOURS[sum(host.encode()) % len(COLOURS)]
        line = Text.assemble((host, colour), (" | ", "dim"), plain(redact.hide(text)))
        with self.lock:
            self.console.print(line, soft_wrap=True)


def members_of(name: str, secrets: str | None = None) -> tuple[str, list[ClusterHost]]:
    """Return the hosts of a cluster: of a file, or of the name of one that was used from here.

    ``secrets`` is as in :func:`read_cluster`.

    Raises
    ------
    ConfigError
        If there is none.
    """
    name, members, _ = standing_of(name, secrets)
    return name, members


def standing_of(
    name: str, secrets: str | None = None
) -> tuple[str, list[ClusterHost], dict[str, InstanceStatus]]:
    """Return the same, and how the hosts stand where the cluster created them.

    Raises
    ------
    ConfigError
        If there is none.
    """
    path = name if os.path.isfile(name) else _file_of_created(name)
    if path:
        cluster = read_cluster(path, secrets)
        with own_errors(cluster):
            machines = cluster.find_machines()
            members = [ClusterHost(m, cluster.local, cluster.remote_dir) for m in machines]
            return cluster.name, members, cluster.instance_statuses()
    files, record = ClusterFiles.of(name), recalled(name)
    hosts = [ClusterHost(machine, files, record.remote_dir) for machine in record.machines]
    return files.name, hosts, {}


def identified(name: str, members: Sequence[ClusterHost], host: str | None) -> list[ClusterHost]:
    """Return hosts with the names that they have, where one is asked for by its name.

    A file alone says nothing of that: who was never on this computer is asked.
    """
    records = [member.files.recall() for member in members[:1]]
    recorded = {machine.private for record in records for machine in record.machines}
    unknown = [
        member
        for member in members
        if member.machine.private not in recorded
        and not (member.machine.identity or member.machine.host_keys)
    ]
    if not unknown or not is_factory(host):
        return list(members)

    def ask(member: ClusterHost) -> None:
        member.connect()
        member.refresh(name)

    outcomes(ask, members)  # who does not answer is told of when a command is run there
    return sorted(members, key=lambda member: order(member.machine.name))


def recalled(name: str) -> ClusterRecord:
    """Return the record of a cluster.

    Raises
    ------
    ConfigError
        If it was not used from here.
    """
    record = ClusterFiles.of(name).recall()
    if not record.is_empty:
        return record
    if name.endswith((".yaml", ".yml")) or os.sep in name:
        raise ConfigError(f"there is no file {name}")
    raise ConfigError(
        Problem(
            f"there is no cluster {name!r} that was used from this machine",
            hint=did_you_mean(name, recorded_clusters()) or "give the file that describes it",
        )
    )


def _file_of_created(name: str) -> str:
    """Return the file of a cluster that creates its hosts: they may be others by now."""
    record = ClusterFiles.of(name).recall()
    is_created = record.kind != SSHCluster.__name__
    return record.file if is_created and os.path.isfile(record.file) else ""


@contextlib.contextmanager
def awake(given: str, secrets: str | None = None) -> Iterator[tuple[str, list[ClusterHost]]]:
    """Yield the hosts of a cluster; those of this machine run for it, if they don't by themselves.

    Raises
    ------
    ConfigError
        If there is none.
    """
    name, members = members_of(given, secrets)
    path = given if os.path.isfile(given) else _file_of_created(given)
    there = any(one.is_orchestrator for one in members)
    cluster = read_cluster(path, secrets) if path and not there else None
    if not isinstance(cluster, LocalCluster):
        yield name, members
        return
    machines = cluster.create_machines(cluster.find_machines())
    try:
        yield name, [ClusterHost(one, cluster.local, cluster.remote_dir) for one in machines]
    finally:
        cluster.remove_machines()


@contextlib.contextmanager
def own_errors(cluster: Cluster) -> Iterator[None]:
    """Name a kind of cluster of one's own, where its code raises."""
    from flambe.cli.exit_handling import refused
    from flambe.compile.build import run_error

    try:
        yield
    except (FlambeError, BrokenPipeError):
        raise
    except Exception as error:
        raise refused(error) or run_error(cluster, error) from error


def read_cluster(path: str, secrets: str | None = None) -> Cluster:
    """Read the file of a cluster, and its secrets; the name of one that was used from here will do.

    Parameters
    ----------
    path
        The file, or the name.
    secrets
        The file of secrets; by default the one that the cluster was made with, else
        ``~/.flambe/secrets.ini``.

    Raises
    ------
    ConfigError
        If it is not one.
    """
    from flambe.compile.build import outlined
    from flambe.compile.checks.calls import check
    from flambe.compile.reader.document import read_file

    if not os.path.isfile(path):
        file = recalled(path).file
        if not os.path.isfile(file):
            text = f"the file of the cluster {path!r} is gone: {file or 'it was made in Python'}"
            raise ConfigError(Problem(text, hint="give the file that describes it"))
        path = file
    document = read_file(path)
    check(document)
    document.raise_problems()
    root = document.root
    target = root.resolve() if isinstance(root, Schema) else None
    if not (isinstance(target, type) and issubclass(target, Cluster)):
        what = f"!{root.tag}" if isinstance(root, Schema) else "no object"
        document.problem(f"a cluster is expected here, not {what}", (), "such as !SSHCluster")
        document.raise_problems()
    cluster = outlined(root)
    assert isinstance(cluster, Cluster)
    cluster.config = _secrets_of(cluster, secrets)
    with own_errors(cluster):
        cluster.parse()
    return cluster


def _secrets_of(cluster: Cluster, file: str | None) -> Secrets:
    """Return the secrets of a cluster; see :func:`read_cluster`."""
    remembered = cluster.local.recall().secrets
    if file is None and os.path.isfile(remembered):
        file = remembered
    secrets = Secrets.read(Path(file) if file else None)
    if redact.values():
        redact.guard_streams()
    return secrets


def chosen(
    members: Sequence[ClusterHost], host: str | None, *, every: bool = False
) -> list[ClusterHost]:
    """Return the hosts that a command is for: one by name or address, all, or the orchestrator."""
    if not members:
        hint = "flambe FILE, with the file that describes it, starts them"
        raise ConfigError(Problem("the hosts of this cluster do not run", hint=hint))
    if every:
        return list(members)
    wanted = host or ORCHESTRATOR
    for member in members:
        machine = member.machine
        if wanted in (machine.name, str(machine.address), str(machine.private)):
            return [member]
    names = [member.machine.name for member in members]
    raise ConfigError(Problem(f"there is no host {wanted!r}", hint=f"there are: {listed(names)}"))
