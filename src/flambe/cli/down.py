"""``flambe down``: take a cluster down."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from flambe.cli import fetch
from flambe.cli.targets import ClusterDisplay, find_hosts, read_cluster, user_errors
from flambe.cluster import SSHCluster, job
from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.local_state import ClusterFiles, recorded_clusters
from flambe.cluster.provisioning import decommission
from flambe.errors import ConfigError, Problem, RemoteError, RunError
from flambe.remote.gather import outcomes

# Seconds until a host that does not answer is given up, with --force.
CONNECT_SECONDS = 8.0


@dataclass(frozen=True)
class DownOptions:
    """The options of ``flambe down``."""

    cluster: str | None = None
    all: bool = False
    force: bool = False
    secrets: str | None = None


def down(options: DownOptions) -> int:
    """Take clusters down: remove what is ours on their hosts, and the hosts that were created."""
    if options.all == bool(options.cluster):
        raise ConfigError(Problem("which cluster?", hint="flambe down CLUSTER, or   --all"))
    if options.cluster:
        return _take_down(options.cluster, force=options.force, secrets=options.secrets)
    display, code = ClusterDisplay(), 0
    for name in recorded_clusters():
        try:
            _take_down(name, force=options.force, secrets=options.secrets)
        except (RunError, ConfigError) as error:
            display.note(f"{name} was not taken down: {error}")
            code = 1
    return code


def _take_down(target: str, *, force: bool, secrets: str | None) -> int:
    name, hosts = find_hosts(target, secrets)
    display = ClusterDisplay()
    file = "" if os.path.isfile(target) else ClusterFiles.of(target).recall().file
    path = file or target
    cluster = _describe(path, name, secrets)
    cluster.observer = display
    # Hosts that were never ready have nothing of ours.
    to_clean = [host for host in hosts if not host.machine.new]
    reached, errors = _connect(to_clean, name, force, display)
    if errors and not force:
        lines = "\n".join(str(error) for error in errors)
        raise RunError(f"{lines}\n  flambe down {target} --force   {_force_effect(cluster)}")
    orchestrator = next((host for host in reached if host.is_orchestrator), None)
    results = orchestrator is not None and fetch.has_results(orchestrator, name)
    if orchestrator is not None and not force:
        _refuse_losses(cluster, orchestrator, name, results=results)
    if orchestrator is None and not force:
        _refuse_stopped(cluster, path)
    cluster.hosts = tuple(reached)
    decommission.take_down(cluster.context)
    for former in decommission.clean_former_hosts(cluster, cluster.context, again=True):
        machine = former.machine
        display.note(f"{machine.name} ({machine.address}) keeps {_leftovers(name)}")
    with user_errors(cluster):
        cluster.remove_machines()
    for host in hosts:
        host.connection.close()
    cluster.local.record.unlink(missing_ok=True)
    display.note(f"{name} is down" if hosts else f"{name} is down: it had no hosts")
    for error in errors:
        display.note(
            f"{error.host} was not reached, and its record is removed; it keeps {_leftovers(name)}"
        )
    if not cluster.ephemeral and reached:
        display.note(_remaining_files(cluster, path, results=results))
    return 0


def _connect(
    hosts: Sequence[ClusterHost], name: str, force: bool, display: ClusterDisplay
) -> tuple[list[ClusterHost], list[RemoteError]]:
    """Return the hosts that were reached, and the errors of the others."""

    def connect(host: ClusterHost) -> ClusterHost:
        host.connect(CONNECT_SECONDS if force else None, display.note)
        host.refresh(name)
        return host

    results = outcomes(connect, hosts)
    reached = [result for result in results if isinstance(result, ClusterHost)]
    return reached, [result for result in results if isinstance(result, RemoteError)]


def _describe(path: str, name: str, secrets: str | None) -> Cluster:
    """Return the cluster of a file; to clean hosts of an SSHCluster, its record is enough.

    Raises
    ------
    ConfigError
        If there is no file, or a wrong one.
    """
    record = ClusterFiles(name).recall()
    try:
        cluster = read_cluster(path, secrets)
        if cluster.name == name:
            return cluster
        reason = f"{path} now describes the cluster {cluster.name!r}, not {name!r}"
    except ConfigError as error:
        reason = str(error)
    if record.kind != SSHCluster.__name__ or not record.machines:
        raise ConfigError(reason)
    return SSHCluster(name, str(record.machines[0].address), remote_dir=record.remote_dir)


def _refuse_losses(cluster: Cluster, host: ClusterHost, name: str, *, results: bool) -> None:
    """Check that no run is in progress, and that no results would be lost.

    Raises
    ------
    RunError
        If one is, or if they would.
    """
    run = host.report.runs.get(name)
    if run is not None and run.runs:
        raise RunError(f"{job.describe_active(run)}\n  --force stops it")
    fetched = cluster.local.recall().fetched
    if cluster.ephemeral and results and fetched != fetch.run_version(host, name):
        raise RunError(
            f"the results of {name} would be lost with its hosts\n"
            f"  flambe fetch {name}   copies them to this machine; --force discards them"
        )


def _force_effect(cluster: Cluster) -> str:
    if cluster.ephemeral:
        return "takes all of it down without checking"
    return "takes down the hosts that are reached, and removes the record of the others"


def _refuse_stopped(cluster: Cluster, path: str) -> None:
    """Check that no stopped host is removed with results that cannot be seen.

    Raises
    ------
    RunError
        If one would be.
    """
    instances = cluster.instance_statuses()
    stopped = [name for name, instance in instances.items() if instance.is_off]
    if stopped:
        raise RunError(
            f"{', '.join(stopped)} of {cluster.name}: stopped, so their results cannot be checked\n"
            f"  flambe {path}   starts them; --force takes them down as they are"
        )


def _leftovers(name: str) -> str:
    return f"files of the cluster: ~/.ssh/flambe-{name}*, and a line of ~/.ssh/authorized_keys"


def _remaining_files(cluster: Cluster, path: str, *, results: bool) -> str:
    """Return what remains on hosts that are not removed, and how to fetch or remove it."""
    file = path if os.path.isfile(path) else "FILE"
    root = cluster.remote_dir
    text = f"  packages{' and results' if results else ''} remain on its hosts, in {root}"
    if results:
        text += f"\n  flambe fetch {file}   copies the results to this machine"
    if isinstance(cluster, SSHCluster):
        return f"{text}\n  flambe exec {file} --all -- rm -r {root}   removes all of it"
    return f"{text}\n  rm -r {cluster.local.folder}   removes all of it"
