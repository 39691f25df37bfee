"""The hosts of a cluster, and its run, as people want them told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from flambe.cli.results_table import took
from flambe.cluster import job
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import InstanceStatus, ends
from flambe.cluster.provisioning import gpu_selection
from flambe.cluster.services import ray_node, service

EXTENSIONS, RAY = "extensions", "Ray"


# Columns, from the one that is left out last where there is little room to the first.
_WORTH = (
    "host",
    "state",
    "ends",
    RAY,
    "address",
    "up",
    "GPUs",
    "CPUs",
    "flambe",
    "memory",
    "Python",
    EXTENSIONS,
)
_WRAP = ("GPUs", "ends", RAY, EXTENSIONS)


def hosts_table(
    name: str,
    members: Sequence[ClusterHost],
    *,
    prepared: bool = False,
    width: int = 140,
    standing: Mapping[str, InstanceStatus] | None = None,
    nodes: Mapping[str, str] | None = None,
) -> Table:
    """Return the hosts of a cluster as a table, without the columns that there is no room for.

    Parameters
    ----------
    name
        Of the cluster.
    members
        Its hosts; those that were not looked at are shown as unreachable.
    prepared
        Whether they were made ready just now: which GPUs may be used is known then.
    width
        How wide it may be.
    standing
        How hosts stand that were created.
    nodes
        The nodes that Ray has, by the names of their hosts; None if it does not say.
    """
    rows = [_row(name, member, prepared, standing or {}) for member in members]
    for row, member in zip(rows, members, strict=True):
        row[RAY] = _node(name, member, nodes) if not prepared else Text()
    titles = ["host", "address", "CPUs", "GPUs", "memory", "Python", "flambe", EXTENSIONS, "up"]
    titles += ["ends", RAY, "state"]
    for title in (EXTENSIONS, "up", "ends", RAY):
        # What a host is told just now is not seen yet.
        if not any(row[title].plain for row in rows) or (title == "ends" and prepared):
            titles.remove(title)
    for title in reversed(_WORTH):
        if _width(titles, rows) > width and title in titles[1:-1]:
            titles.remove(title)
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in titles:
        number = title in ("CPUs", "memory")
        wraps = title in _WRAP
        table.add_column(title, justify="right" if number else "left", no_wrap=not wraps)
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    return table


def _width(titles: Sequence[str], rows: Sequence[Mapping[str, Text]]) -> int:
    """Return how wide a table is at least: what wraps is as wide as its longest word."""
    wide = 0
    for title in titles:
        texts = [title, *(row[title].plain for row in rows)]
        wraps = title in _WRAP
        words = [word for text in texts for word in text.split()] if wraps else texts
        wide += max(len(word) for word in words) + 2
    return wide - 2


def _row(
    name: str, member: ClusterHost, prepared: bool, standing: Mapping[str, InstanceStatus]
) -> dict[str, Text]:
    """Return what each column says of a host."""
    row = {title: Text() for title in _WORTH}
    row["host"] = Text(member.machine.name)
    row["address"] = Text(str(member.machine.address))
    if (stands := standing.get(member.machine.name)) is not None:
        row["up"] = Text(took(stands.age))
    if not member.report:
        return {**row, "state": Text("unreachable", "bold red")}
    facts, ours = member.facts, _ours(member)
    told = gpu_selection.told(facts["gpus"], name, len(member.gpus) if prepared else None)
    run = member.report["runs"].get(name)
    if any(one["wrong"] for one in ours.values()):
        state = Text("altered", "bold red")
    elif run is not None and run["state"] == job.RUNNING:
        state = Text("running", "bold cyan")
    else:
        state = Text("ready", "green")
    return {
        **row,
        "CPUs": Text(str(facts["cpus"])),
        "GPUs": Text(told),
        "memory": Text(_size(facts["memory"])),
        "Python": Text(facts["python"]),
        "flambe": Text(_hash(ours.get("flambe"))),
        EXTENSIONS: Text(_extensions(member)),
        "ends": Text(ends(member.report.get("reaper", {}))),
        "state": state,
    }


def standing_told(
    standing: Mapping[str, InstanceStatus], members: Sequence[ClusterHost]
) -> list[str]:
    """Return what the table does not tell of hosts that were created."""
    shown = {member.machine.name for member in members}
    told = [
        f"{name} ({one.identity}) is {one.state}"
        for name, one in standing.items()
        if name not in shown
    ]
    hours = sum(one.hours for one in standing.values())
    if hours:
        digits = 1 if hours > 10 else 2
        told.append(f"{hours:.{digits}f} instance-hours since they were started")
    return told


def _node(name: str, member: ClusterHost, nodes: Mapping[str, str] | None) -> Text:
    """Return whether Ray has the node of a host, and under which name where that is another one."""
    host = member.machine.name
    if not member.report:
        return Text("joined" if host in (nodes or ()) else "")
    status = member.report["runs"].get(service.name_of(name, ray_node.SERVICE), {})
    if not (running := ray_node.node_name(status)):
        return Text("")
    if nodes is None:
        return Text("not known", "yellow")
    if running not in nodes:
        again = f", {status['restarts']} restarts" if status.get("restarts") else ""
        return Text(f"not joined{again}", "yellow")
    if running != host:
        return Text(f"as {running}", "yellow")
    return Text("head" if member.is_orchestrator else "joined", "green")


def _ours(member: ClusterHost) -> Mapping[str, Any]:
    """Return flambe and the extensions that a host has, with the hashes of their files."""
    found = member.report.get("environment")
    return dict(found["ours"]) if found is not None else {}


def _hash(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    return "altered" if one["wrong"] else str(one["hash"])[:8]


def _extensions(member: ClusterHost) -> str:
    """Return the extensions of a host: name, version, and the start of the hash of their files."""
    ours = _ours(member)
    versions = member.report["environment"]["distributions"] if ours else {}
    names = sorted(name for name in ours if name != "flambe")
    return ", ".join(f"{name} {versions[name]} ({_hash(ours[name])})" for name in names)


def _size(size: float) -> str:
    return f"{size / 1024**3:.0f} GiB"
