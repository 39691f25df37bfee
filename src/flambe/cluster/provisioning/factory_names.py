"""Names of factories: they belong to machines, whatever their places in the file are.

Each machine has its name on its own disk; this computer records it too, by the identity of the
machine and its addresses. A file may leave out any of them, add some, and change their order or
their addresses: those that stay keep their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.cluster_record import ClusterRecord, FormerMachine
from flambe.cluster.machine import NAME, ORCHESTRATOR, Machine, is_factory, order
from flambe.cluster.services import ray_node, service
from flambe.remote import each


def assigned(claims: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Return the names of hosts, the orchestrator first.

    Parameters
    ----------
    claims
        The name that each of them has already; empty for one that has none.
    reserved
        Names of machines that have left, and may still be in use.
    """
    kept: list[str] = []
    for claim in claims[1:]:
        kept.append(claim if is_factory(claim) and claim not in kept else "")
    taken = {*kept, *reserved}
    free = (name for n in itertools.count(1) if (name := f"factory_{n}") not in taken)
    return [ORCHESTRATOR, *(name or next(free) for name in kept)]


def recalled(machines: Sequence[Machine], record: ClusterRecord) -> list[Machine]:
    """Return machines with the names that this computer has on record for their addresses.

    Parameters
    ----------
    machines
        As the file describes them, the orchestrator first.
    record
        The record of the cluster.
    """
    claims = [_name_at(machine, record.machines) for machine in machines]
    names = assigned(claims, {former.machine.name for former in record.left})
    return [replace(m, name=name) for m, name in zip(machines, names, strict=True)]


def _name_at(machine: Machine, recorded: Sequence[Machine]) -> str:
    """Return the name on record for the addresses of a machine: its private one counts first."""
    matchers: list[Callable[[Machine], bool]] = [
        lambda other: other.private == machine.private,
        lambda other: machine.address in (other.address, other.private),
    ]
    for matches in matchers:
        if match := next(filter(matches, recorded), None):
            return match.name
    return ""


def settle(
    cluster: str,
    hosts: Sequence[ClusterHost],
    record: ClusterRecord,
    waiting: Sequence[FormerMachine],
) -> list[ClusterHost]:
    """Give identified hosts their names; return them in the order of these.

    Parameters
    ----------
    cluster, hosts
        The name of the cluster, and its hosts with their reports, the orchestrator first.
    record
        The record of the cluster.
    waiting
        Machines that have left, and were not cleaned yet.
    """
    claims = [_claim(cluster, host, record) for host in hosts]
    names = assigned(claims, {former.machine.name for former in waiting})
    for host, name in zip(hosts, names, strict=True):
        host.rename(name)
    unmarked = [host for host in hosts if host.report.marks.get(NAME) != host.machine.name]
    each(lambda host: host.mark(cluster, NAME, host.machine.name), unmarked)
    return sorted(hosts, key=lambda host: order(host.machine.name))


def _claim(cluster: str, host: ClusterHost, record: ClusterRecord) -> str:
    """Return the name that a host has: by its own disk, its Ray node, or the record."""
    marked = host.report.marks.get(NAME)
    if is_factory(marked):
        return str(marked)
    status = host.report.runs.get(service.name_of(cluster, ray_node.SERVICE))
    if name := ray_node.node_name(status):
        return name
    for machine in record.machines:
        if machine.identity == host.identity:
            return machine.name
    # Another machine may have the address of one that has left.
    return _name_at(host.machine, [m for m in record.machines if not m.identity])
