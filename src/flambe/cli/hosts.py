"""The hosts of a cluster, and its run, as people want them told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from flambe.cli.display import took
from flambe.cluster import gpus, launch
from flambe.cluster.member import Member

EXTENSIONS = "extensions"


def hosts_table(name: str, members: Sequence[Member], *, prepared: bool = False) -> Table:
    """Return the hosts of a cluster as a table."""
    extended = any(_extensions(member) for member in members)
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0))
    titles = ["host", "address", "CPUs", "GPUs", "memory", "Python", "flambe"]
    for title in [*titles, EXTENSIONS] if extended else titles:
        number = title in ("CPUs", "memory")
        wraps = title in ("GPUs", EXTENSIONS)
        table.add_column(title, justify="right" if number else "left", no_wrap=not wraps)
    table.add_column("state")
    for member in members:
        facts = member.facts
        run = member.report["runs"].get(name)
        runs = run is not None and run["state"] == launch.RUNNING
        table.add_row(
            member.machine.name,
            str(member.machine.address),
            str(facts["cpus"]),
            gpus.told(facts["gpus"], name, len(member.gpus) if prepared else None),
            _size(facts["memory"]),
            facts["python"],
            _hash(_ours(member).get("flambe")),
            *([_extensions(member)] if extended else []),
            Text("running", "bold cyan") if runs else Text("ready", "green"),
        )
    return table


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
    return str(one["hash"])[:8] if one is not None else ""


def _extensions(member: Member) -> str:
    """Return the extensions of a host: name, version, and the start of the hash of their files."""
    ours = _ours(member)
    versions = member.report["environment"]["distributions"] if ours else {}
    names = sorted(name for name in ours if name != "flambe")
    return ", ".join(f"{name} {versions[name]} ({_hash(ours[name])})" for name in names)


def _size(size: float) -> str:
    return f"{size / 1024**3:.0f} GiB"
