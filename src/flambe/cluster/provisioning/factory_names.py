"""Names of factories: they belong to machines, whatever their places in the file are.

Each machine has its name on its own disk; this computer remembers it too, by the identity of the
machine and its addresses. A file may leave out any of them, add some, and change their order or
their addresses: those that stay keep their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flambe.cluster import local_state
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.machine import NAME, ORCHESTRATOR, Machine, is_factory, order
from flambe.cluster.services import ray_service, service
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


def recalled(machines: Sequence[Machine], note: Mapping[str, Any]) -> list[Machine]:
    """Return machines with the names that this computer remembers for their addresses.

    Parameters
    ----------
    machines
        As the file describes them, the orchestrator first.
    note
        What is remembered of the cluster.
    """
    known = [local_state.machine_of(entry) for entry in note.get("machines", ())]
    waiting = [local_state.machine_of(entry) for entry in note.get("left", ())]
    claims = [_name_at(machine, known) for machine in machines]
    names = assigned(claims, {one.name for one in waiting})
    return [replace(one, name=name) for one, name in zip(machines, names, strict=True)]


def _name_at(machine: Machine, known: Sequence[Machine]) -> str:
    for same in (
        lambda one: one.private == machine.private,
        lambda one: machine.address in (one.address, one.private),
    ):
        if match := next(filter(same, known), None):
            return match.name
    return ""


def settle(
    cluster: str, members: Sequence[ClusterHost], note: Mapping[str, Any], waiting: Sequence[Any]
) -> list[ClusterHost]:
    """Give hosts their names, now that each was asked who it is; return them in this order.

    Parameters
    ----------
    cluster, members
        The name of the cluster, and its hosts as they were looked at, the orchestrator first.
    note
        What is remembered of the cluster.
    waiting
        What is remembered of machines that have left, and were not cleaned yet.
    """
    claims = [_claim(cluster, member, note) for member in members]
    names = assigned(claims, {str(entry["name"]) for entry in waiting})
    for member, name in zip(members, names, strict=True):
        member.rename(name)
    unmarked = [one for one in members if one.report["marks"].get(NAME) != one.machine.name]
    each(lambda one: one.mark(cluster, NAME, one.machine.name), unmarked)
    return sorted(members, key=lambda member: order(member.machine.name))


def _claim(cluster: str, member: ClusterHost, note: Mapping[str, Any]) -> str:
    """Return the name that a host has: by its own disk, its Ray node, or what is remembered."""
    marked = member.report["marks"].get(NAME)
    if is_factory(marked):
        return str(marked)
    if running := ray_service.node_name(
        member.report["runs"].get(service.name_of(cluster, "ray"), {})
    ):
        return running
    known = [local_state.machine_of(entry) for entry in note.get("machines", ())]
    for one in known:
        if one.identity == member.identity:
            return one.name
    # Another machine may have the address of one that has left.
    return _name_at(member.machine, [one for one in known if not one.identity])
