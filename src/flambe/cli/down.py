"""``flambe down``: take a cluster down."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from flambe.cli import fetch
from flambe.cli.targets import ClusterDisplay, members_of, own_errors, read_cluster
from flambe.cluster import SSHCluster, job
from flambe.cluster.cluster import Cluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.local_state import ClusterFiles, recorded_clusters
from flambe.cluster.provisioning import decommission
from flambe.errors import ConfigError, Problem, RemoteError, RunError
from flambe.remote.gather import outcomes

# How long a host is tried that is taken down by force, in seconds.
PATIENCE = 8.0


def down(options: argparse.Namespace) -> int:
    """Take clusters down: what is ours on their hosts, and the hosts that were created."""
    if options.all == bool(options.cluster):
        raise ConfigError(Problem("which cluster?", hint="flambe down CLUSTER, or   --all"))
    if not options.all:
        return _down(options.cluster, force=options.force, secrets=options.secrets)
    shown, worst = ClusterDisplay(), 0
    for name in recorded_clusters():
        try:
            _down(name, force=options.force, secrets=options.secrets)
        except (RunError, ConfigError) as error:
            shown.note(f"{name} is not down: {error}")
            worst = 1
    return worst


def _down(given: str, *, force: bool, secrets: str | None) -> int:
    name, members = members_of(given, secrets)
    shown = ClusterDisplay()
    file = "" if os.path.isfile(given) else ClusterFiles.of(given).recall().file
    path = file or given
    cluster = _described(path, name, secrets)
    cluster.observer = shown
    # On those that were never ready there is nothing to look for.
    reached, lost = _look([one for one in members if not one.machine.new], name, force, shown)
    if lost and not force:
        raise RunError(
            "\n".join(str(error) for error in lost)
            + f"\n  flambe down {given} --force   {_by_force(cluster)}"
        )
    first = next((one for one in reached if one.is_orchestrator), None)
    results = first is not None and fetch.has_results(first, name)
    if first is not None and not force:
        _refuse(cluster, first, name, results=results)
    if first is None and not force:
        _refuse_unseen(cluster, path)
    cluster.hosts = tuple(reached)
    decommission.take_down(cluster.context)
    for former in decommission.clean_former_hosts(cluster, cluster.context, again=True):
        machine = former.machine
        shown.note(f"{machine.name} ({machine.address}) keeps {_kept(name)}")
    with own_errors(cluster):
        cluster.remove_machines()
    for member in members:
        member.connection.close()
    cluster.local.record.unlink(missing_ok=True)
    shown.note(f"{name} is down" if members else f"{name} is down: it had no hosts")
    for error in lost:
        shown.note(f"{error.host} was not reached, and is forgotten; it keeps {_kept(name)}")
    if not cluster.ephemeral and reached:
        shown.note(_left(cluster, path, results=results))
    return 0


def _look(
    members: Sequence[ClusterHost], name: str, force: bool, shown: ClusterDisplay
) -> tuple[list[ClusterHost], list[RemoteError]]:
    """Return the hosts that were reached, and the errors of the others."""

    def look(member: ClusterHost) -> ClusterHost:
        member.connect(PATIENCE if force else None, shown.note)
        member.refresh(name)
        return member

    found = outcomes(look, members)
    reached = [one for one in found if isinstance(one, ClusterHost)]
    return reached, [one for one in found if isinstance(one, RemoteError)]


def _described(path: str, name: str, secrets: str | None) -> Cluster:
    """Return the cluster of a file; machines that are reached by SSH need none to be cleaned.

    Raises
    ------
    ConfigError
        If there is no file, or a wrong one.
    """
    record = ClusterFiles(name).recall()
    try:
        made = read_cluster(path, secrets)
        if made.name == name:
            return made
        what = f"{path} describes the cluster {made.name!r} now, not {name!r}"
    except ConfigError as error:
        what = str(error)
    if record.kind != SSHCluster.__name__ or not record.machines:
        raise ConfigError(what)
    return SSHCluster(name, str(record.machines[0].address), remote_dir=record.remote_dir)


def _refuse(cluster: Cluster, host: ClusterHost, name: str, *, results: bool) -> None:
    """See that nothing runs, and nothing is lost.

    Raises
    ------
    RunError
        If it does, or would be.
    """
    running = host.report["runs"].get(name)
    if running and running["state"] == job.RUNNING:
        raise RunError(f"{job.busy(running)}\n  --force stops it")
    fetched = cluster.local.recall().fetched
    if cluster.ephemeral and results and fetched != fetch.seen(host, name):
        raise RunError(
            f"the results of {name} would be lost with its hosts\n"
            f"  flambe fetch {name}   brings them here; --force takes it down without"
        )


def _by_force(cluster: Cluster) -> str:
    if cluster.ephemeral:
        return "takes all of it down, unseen"
    return "takes down what is reached, and forgets the rest"


def _refuse_unseen(cluster: Cluster, path: str) -> None:
    """See that no host that was stopped takes results along which nobody saw.

    Raises
    ------
    RunError
        If one would.
    """
    stopped = [name for name, one in cluster.instance_statuses().items() if one.is_off]
    if stopped:
        raise RunError(
            f"{', '.join(stopped)} of {cluster.name}: stopped, and what is on them cannot be seen\n"
            f"  flambe {path}   starts them; --force takes them down as they are"
        )


def _kept(name: str) -> str:
    return f"what is the cluster's: ~/.ssh/flambe-{name}*, and a line of ~/.ssh/authorized_keys"


def _left(cluster: Cluster, path: str, *, results: bool) -> str:
    """Return what stays on hosts that stay, and how to get it or be rid of it."""
    file = path if os.path.isfile(path) else "FILE"
    root = cluster.remote_dir
    told = f"  packages{' and results' if results else ''} stay on its hosts, in {root}"
    if results:
        told += f"\n  flambe fetch {file}   brings the results here"
    if isinstance(cluster, SSHCluster):
        return f"{told}\n  flambe exec {file} --all -- rm -r {root}   removes all of it"
    return f"{told}\n  rm -r {cluster.local.folder}   removes all of it"
