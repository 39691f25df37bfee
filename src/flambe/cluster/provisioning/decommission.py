"""Cleaning hosts: all of them when a cluster is taken down, and those that left its file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.cluster_record import FormerMachine
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.cluster.machine import Machine
from flambe.cluster.machine_provider import MachineProvider
from flambe.cluster.provisioning import cluster_keys
from flambe.cluster.services import report_site, service, site_address
from flambe.cluster.services.docker import Docker
from flambe.cluster.services.ray_service import RayNodes
from flambe.errors import HostKeyError, RemoteError, RunError
from flambe.remote import each
from flambe.remote.agent.protocol import ForgetRequest, LockHolder, StopRequest

# How long flambe tries to connect to a host that has left, in seconds.
CONNECT_SECONDS = 5.0
RETRY_SECONDS = 3600.0


def take_down(cluster: ClusterContext) -> None:
    """Stop what flambe runs on the hosts, and remove the keys and files of the cluster."""
    if not cluster.hosts:
        return
    Docker(cluster).remove_all()
    each(lambda host: _clean(cluster, host), cluster.hosts)


def _clean(cluster: ClusterContext, host: ClusterHost) -> None:
    for name in service.names_of(cluster.name, host.report.runs):
        host.agent.ask(StopRequest(name), deadline=120.0)
        host.report.runs.pop(name, None)
    RayNodes(cluster).remove(host)
    host.agent.ask(ForgetRequest(cluster.name))
    job = f"{cluster.folder}/job"
    certificates = [report_site.certificate_path(cluster, kind) for kind in site_address.FILES]
    host.run(["rm", "-rf", job, proxy.path(cluster), *certificates], repeat=True)
    cluster_keys.remove(cluster.name, [host])


# -- hosts that are no longer in the file -------------------------------------------------------


def refuse_another_orchestrator(provider: MachineProvider, cluster: ClusterContext) -> None:
    """Refuse a file with another orchestrator while a run is active on the former one.

    Raises
    ------
    RunError
        If one is: it would continue where no command finds it.
    """
    recorded = cluster.local.recall().machines
    if not recorded or not provider.lasting:
        return
    hosts, former = cluster.hosts, recorded[0]
    if _same(former, hosts[0].machine):
        return
    present = next((host for host in hosts if _same(former, host.recorded)), None)
    if present is hosts[0]:
        return  # it has another address now
    try:
        run = (present or _connected(cluster, former)).report.runs.get(cluster.name)
    except RemoteError as error:
        changed = isinstance(error, HostKeyError)
        problem = "has another host key now" if changed else "cannot be reached"
        cluster.observer.note(
            f"warning: {former.address}, the former orchestrator, {problem}: "
            "a run may still be active there"
        )
        return
    if run is not None and run.runs:
        raise RunError(
            f"{cluster.name}: a run is active on {former.address}, which was the orchestrator"
            f" until now\n  {LockHolder.from_json(run.about).command}\n"
            f"  flambe stop {cluster.name}   stops it; or give this cluster another name"
        )
    cluster.observer.note(f"the results of earlier runs are on {former.address}, not fetched here")


def clean_former_hosts(
    provider: MachineProvider, cluster: ClusterContext, *, again: bool = False
) -> list[FormerMachine]:
    """Clean hosts that are no longer in the file, and report it.

    Parameters
    ----------
    provider, cluster
        The cluster, with the reports of its hosts.
    again
        Whether to try hosts too that could not be reached within the last hour.

    Returns
    -------
    list of FormerMachine
        Those that are still to be cleaned.
    """
    # By now the hosts are identified: one with another address has not left.
    present = [host.recorded for host in cluster.hosts]
    former = _former(provider, cluster, present)
    if not former:
        return []
    run = cluster.hosts[0].report.runs.get(cluster.name) if cluster.hosts else None
    if run is not None and run.runs:
        names = ", ".join(str(entry.machine.address) for entry in former)
        cluster.observer.note(f"{names}: no longer in the file; cleaned when the run has ended")
        return [replace(entry, tried=0) for entry in former]
    cleaned: list[str] = []  # the identities of those that have nothing of the cluster any more

    def clean(entry: FormerMachine) -> FormerMachine | None:
        """Return the machine if it is still to be cleaned."""
        machine = entry.machine
        if time.time() - entry.tried < RETRY_SECONDS and not again:
            return entry
        try:
            host = _connected(cluster, machine)
            if host.identity in [other.identity for other in present if other.identity]:
                return None  # it has another address in the file now
            _clean(cluster, host)
        except RemoteError as error:
            cluster.observer.note(f"{machine.address}: no longer in the file, {_why(error)}")
            return replace(entry, tried=time.time())
        cleaned.append(host.identity)
        host.connection.close()
        provider.release_machine(machine)
        cluster.observer.note(f"{machine.address}: no longer in the file; cleaned")
        return None

    waiting = [entry for entry in each(clean, former) if entry is not None]
    if cluster.hosts:
        RayNodes(cluster).forget_holders(cluster.hosts[0], cleaned)
    return waiting


def _former(
    provider: MachineProvider, cluster: ClusterContext, present: Sequence[Machine]
) -> list[FormerMachine]:
    """Return the machines that have left the cluster, and that were not cleaned yet."""
    record = cluster.local.recall()
    if provider.lasting:
        recorded = [*map(FormerMachine, record.machines), *record.left]
        return [e for e in recorded if not any(_same(e.machine, other) for other in present)]
    tried = {entry.machine.private: entry.tried for entry in record.left}
    return [FormerMachine(m, tried.get(m.private, 0)) for m in provider.former_machines()]


def _same(machine: Machine, other: Machine) -> bool:
    if machine.identity and machine.identity == other.identity:
        return True
    return bool({machine.address, machine.private} & {other.address, other.private})


def _why(error: RemoteError) -> str:
    """Return why a host that has left could not be cleaned, and what is left on it."""
    if isinstance(error, HostKeyError):
        return (
            "and its host key has changed: it was reinstalled, or another machine has its "
            "address; nothing was done there"
        )
    return "and cannot be reached: it keeps the key of the cluster for now"


def _connected(cluster: ClusterContext, machine: Machine) -> ClusterHost:
    root = cluster.local.recall().remote_dir or cluster.remote_dir
    host = ClusterHost(machine, cluster.local, root)
    host.connect(CONNECT_SECONDS)
    host.refresh(cluster.name)
    return host
