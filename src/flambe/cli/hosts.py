"""The hosts of a cluster, and its run, as people want them told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from flambe.cli.results import took
from flambe.cluster import gpus, launch
from flambe.cluster.member import Member
from flambe.cluster.standing import Standing, ends

EXTENSIONS = "extensions"


# Columns, from the one that is left out last where there is little room to the first.
_WORTH = (
    "host",
    "state",
    "ends",
    "address",
    "up",
    "GPUs",
    "CPUs",
    "flambe",
    "memory",
    "Python",
    EXTENSIONS,
)
_WRAP = ("GPUs", "ends", EXTENSIONS)


def hosts_table(
    name: str,
    members: Sequence[Member],
    *,
    prepared: bool = False,
    width: int = 140,
    standing: Mapping[str, Standing] | None = None,
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
    """
    rows = [_row(name, member, prepared, standing or {}) for member in members]
    titles = ["host", "address", "CPUs", "GPUs", "memory", "Python", "flambe", EXTENSIONS, "up"]
    titles += ["ends", "state"]
    for title in (EXTENSIONS, "up", "ends"):
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
    name: str, member: Member, prepared: bool, standing: Mapping[str, Standing]
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
    told = gpus.told(facts["gpus"], name, len(member.gpus) if prepared else None)
    run = member.report["runs"].get(name)
    if any(one["wrong"] for one in ours.values()):
        state = Text("altered", "bold red")
    elif run is not None and run["state"] == launch.RUNNING:
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


def standing_told(standing: Mapping[str, Standing], members: Sequence[Member]) -> list[str]:
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


def run_told(run: dict[str, Any] | None) -> str:
    """Return what people want to know of the run of a cluster."""
    if run is None:
        return "nothing was run on it yet"
    if run["state"] == launch.RUNNING:
        since = took(time.time() - run["started"])
        return f"running for {since}, started by {launch.who(run)}: {run['about']['command']}"
    if "code" not in run:
        return "the last run is gone, and nobody saw how it ended"
    ago = took(time.time() - run["ended"])
    return f"the last run ended {ago} ago with exit code {run['code']}: {run['about']['command']}"


def _ours(member: Member) -> Mapping[str, Any]:
    """Return flambe and the extensions that a host has, with the hashes of their files."""
    found = member.report.get("environment")
    return dict(found["ours"]) if found is not None else {}


def _hash(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    return "altered" if one["wrong"] else str(one["hash"])[:8]


def _extensions(member: Member) -> str:
    """Return the extensions of a host: name, version, and the start of the hash of their files."""
    ours = _ours(member)
    versions = member.report["environment"]["distributions"] if ours else {}
    names = sorted(name for name in ours if name != "flambe")
    return ", ".join(f"{name} {versions[name]} ({_hash(ours[name])})" for name in names)


def _size(size: float) -> str:
    return f"{size / 1024**3:.0f} GiB"
