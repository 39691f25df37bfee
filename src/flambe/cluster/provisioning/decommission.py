"""What is cleaned on hosts that leave: all of them at the end, and those that leave the file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flambe.cluster import local_state
from flambe.cluster.cluster_host import ClusterHost
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

# How long a host is tried that nobody needs any more, in seconds.
PATIENCE = 5.0
TRY_AGAIN = 3600.0


def take_down(cluster: ClusterContext) -> None:
    """Stop what flambe runs on the hosts, and remove the keys and files that are the cluster's."""
    if not cluster.hosts:
        return
    Docker(cluster).remove_all()
    each(lambda host: _clean(cluster, host), cluster.hosts)


def _clean(cluster: ClusterContext, member: ClusterHost) -> None:
    for name in service.of(cluster.name, member.report["runs"]):
        member.agent.call("stop", name=name, deadline=120.0)
        member.report["runs"].pop(name, None)
    RayNodes(cluster).remove(member)
    member.agent.call("forget", cluster=cluster.name)
    job = f"{cluster.folder}/job"
    pems = [report_site.certificate_path(cluster, kind) for kind in site_address.FILES]
    member.run(["rm", "-rf", job, proxy.path(cluster), *pems], repeat=True)
    cluster_keys.remove(cluster.name, [member])


# -- hosts that are no longer in the file -------------------------------------------------------


def left(
    provider: MachineProvider, cluster: ClusterContext, machines: Sequence[Machine]
) -> list[Machine]:
    """Return the machines that the cluster had once, has no more, and that were not cleaned yet."""
    if not provider.lasting:
        return provider.former_machines()
    note = cluster.local.recall()
    known = [local_state.machine_of(told) for told in (*_machines(note), *note.get("left", ()))]
    return [one for one in known if not any(_same(one, other) for other in machines)]


def refuse_another_orchestrator(provider: MachineProvider, cluster: ClusterContext) -> None:
    """See that no run goes on at an orchestrator that is not the one of the file any more.

    Raises
    ------
    RunError
        If one does: it would go on, and nobody could come back to it.
    """
    members, known = cluster.hosts, _machines(cluster.local.recall())
    before = local_state.machine_of(known[0]) if known and provider.lasting else None
    if before is None or _same(before, members[0].machine):
        return
    present = {member: replace(member.machine, identity=member.identity) for member in members}
    found = next((member for member, one in present.items() if _same(before, one)), None)
    if found is members[0]:
        return  # it has another address now
    try:
        running = (found or _reached(cluster, before)).report["runs"].get(cluster.name, {})
    except RemoteError as error:
        changed = isinstance(error, HostKeyError)
        what = "has another host key now" if changed else "is not reached"
        text = f"warning: {before.address}, the former orchestrator, {what}"
        cluster.observer.note(f"{text}: nobody knows whether a run goes on there")
        return
    if running.get("state") == service.RUNNING:
        raise RunError(
            f"{cluster.name}: a run goes on at {before.address}, which was the orchestrator"
            f" until now\n  {running['about']['command']}\n"
            f"  flambe stop {cluster.name}   ends it; or give this cluster another name"
        )
    cluster.observer.note(f"the results of earlier runs are on {before.address}, not fetched here")


def clean_former_hosts(
    provider: MachineProvider, cluster: ClusterContext, *, again: bool = False
) -> list[dict[str, Any]]:
    """Clean hosts that are no longer in the file, and tell of it.

    Parameters
    ----------
    provider, cluster
        The cluster, with the reports of its hosts.
    again
        Whether those are tried too that could not be reached within the last hour.

    Returns
    -------
    list of dict
        What is to be remembered of those that wait for it.
    """
    # By now it is known who they are: one with another address has not left.
    members = cluster.hosts
    present = [replace(member.machine, identity=member.identity) for member in members]
    waiting = left(provider, cluster, present)
    if not waiting:
        return []
    tried = {one["private"]: one.get("tried", 0) for one in cluster.local.recall().get("left", ())}
    run = members[0].report["runs"].get(cluster.name, {}) if members else {}
    if run.get("state") == service.RUNNING:
        names = ", ".join(str(machine.address) for machine in waiting)
        cluster.observer.note(f"{names}: no longer in the file; cleaned when the run has ended")
        return [local_state.note_of(machine) for machine in waiting]
    gone: list[str] = []  # the identities of those that have nothing of the cluster's any more

    def clean(machine: Machine) -> float:
        """Return when it was tried in vain; nothing if it was not."""
        before = tried.get(str(machine.private), 0)
        if time.time() - before < TRY_AGAIN and not again:
            return float(before)
        try:
            member = _reached(cluster, machine)
            if member.identity in [one.identity for one in present if one.identity]:
                return 0.0  # it has another address in the file now
            _clean(cluster, member)
        except RemoteError as error:
            cluster.observer.note(f"{machine.address}: no longer in the file, {_why(error)}")
            return time.time()
        gone.append(member.identity)
        member.connection.close()
        provider.release_machine(machine)
        cluster.observer.note(f"{machine.address}: no longer in the file; cleaned")
        return 0.0

    found = list(zip(waiting, each(clean, waiting), strict=True))
    if members:
        RayNodes(cluster).forget(members[0], gone)
    return [{**local_state.note_of(machine), "tried": when} for machine, when in found if when]


def _machines(note: dict[str, Any]) -> list[dict[str, Any]]:
    return list(note.get("machines", ()))


def _same(one: Machine, other: Machine) -> bool:
    if one.identity and one.identity == other.identity:
        return True
    return bool({one.address, one.private} & {other.address, other.private})


def _why(error: RemoteError) -> str:
    """Return why a host that has left could not be cleaned, and what is left on it."""
    if isinstance(error, HostKeyError):
        return (
            "and its host key has changed: it was installed again, or another machine has its "
            "address; nothing was done there"
        )
    return "and not reached: it keeps the cluster's key for now"


def _reached(cluster: ClusterContext, machine: Machine) -> ClusterHost:
    root = cluster.local.recall().get("remote_dir", cluster.remote_dir)
    member = ClusterHost(machine, cluster.local, root)
    member.connect(PATIENCE)
    member.refresh(cluster.name)
    return member
