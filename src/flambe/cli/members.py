"""The clusters that commands are about: read from a file, or known by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from flambe.cli.display import COLOURS, console
from flambe.cluster.cluster import Cluster
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.member import Member
from flambe.cluster.record import ClusterFiles, known
from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.logging import redact
from flambe.remote import Address


class ClusterDisplay:
    """Shows what happens to a cluster; a ClusterObserver."""

    def __init__(self) -> None:
        self.console = console()
        self.lock = threading.Lock()

    def note(self, text: str) -> None:
        """Print a note."""
        with self.lock:
            self.console.print(redact.hide(text), markup=False, soft_wrap=True, style="dim")

    def host_line(self, host: str, text: str) -> None:
        """Print a line that a command on a host said."""
        colour = COLOURS[sum(host.encode()) % len(COLOURS)]
        line = Text.assemble((host, colour), (" | ", "dim"), redact.hide(text))
        with self.lock:
            self.console.print(line, soft_wrap=True)


def members_of(name: str) -> tuple[str, list[Member]]:
    """Return the hosts of a cluster: of a file, or of the name of one that was used from here.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if os.path.isfile(name):
        cluster = read_cluster(name)
        machines = cluster.find_machines()
        return cluster.name, [Member(m, cluster.local, cluster.remote_dir) for m in machines]
    files = ClusterFiles(name)
    note = files.recall()
    if not note:
        if name.endswith((".yaml", ".yml")) or os.sep in name:
            raise ConfigError(f"there is no file {name}")
        raise ConfigError(
            Problem(
                f"there is no cluster {name!r} that was used from this machine",
                hint=did_you_mean(name, known()) or "give the file that describes it",
            )
        )
    members = []
    for told in note["machines"]:
        machine = Machine(
            told["name"],
            Address.parse(told["address"]),
            Address.parse(told["private"]),
            told["user"],
            Path(told["key"]) if told["key"] else None,
        )
        members.append(Member(machine, files, note["remote_dir"]))
    return name, members


def read_cluster(path: str) -> Cluster:
    """Read the file of a cluster.

    Raises
    ------
    ConfigError
        If it is not one.
    """
    from flambe.compile.check import check
    from flambe.compile.document import read_file

    document = read_file(path)
    check(document)
    document.raise_problems()
    made = document.root() if callable(document.root) else document.root
    if not isinstance(made, Cluster):
        raise ConfigError(f"{path} describes no cluster, but {type(made).__name__}")
    made.parse()
    return made


def chosen(members: Sequence[Member], host: str | None, *, every: bool = False) -> list[Member]:
    """Return the hosts that a command is for: one by name or address, all, or the orchestrator."""
    if every:
        return list(members)
    wanted = host or ORCHESTRATOR
    for member in members:
        machine = member.machine
        if wanted in (machine.name, str(machine.address), str(machine.private)):
            return [member]
    names = [member.machine.name for member in members]
    hint = did_you_mean(wanted, names) or f"there are: {', '.join(names)}"
    raise ConfigError(Problem(f"there is no host {wanted!r}", hint=hint))
