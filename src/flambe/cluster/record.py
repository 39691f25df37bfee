"""What this machine remembers of its clusters: files of each, named once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambe._files import write_private
from flambe._grammar import NAME_HINT, wrong_ascii_name
from flambe.cluster.machine import Machine
from flambe.errors import ConfigError, Problem
from flambe.logging.console import home, home_folder
from flambe.remote import Address


@dataclass(frozen=True)
class ClusterFiles:
    """Every local path of one cluster."""

    name: str

    @property
    def folder(self) -> Path:
        """Its folder.

        Raises
        ------
        ConfigError
            If that would be elsewhere.
        """
        if what := wrong_ascii_name(self.name):
            raise ConfigError(Problem(f"cluster: {what}", hint=NAME_HINT))
        return home() / "clusters" / self.name

    def make_folder(self) -> Path:
        """Make its folder, and return it."""
        return home_folder("clusters", self.name)

    @property
    def known_hosts(self) -> Path:
        """The host keys of its machines."""
        return self.folder / "known_hosts"

    @property
    def setup_log(self) -> Path:
        """What its setup commands said, the last time that they ran."""
        return self.folder / "setup.log"

    @property
    def note(self) -> Path:
        """Which file describes it, and who its machines are."""
        return self.folder / "cluster.json"

    def remember(self, note: Mapping[str, Any]) -> None:
        """Write the note."""
        write_private(self.make_folder() / self.note.name, json.dumps(note, indent=1))

    def recall(self) -> dict[str, Any]:
        """Return the note, empty if there is none."""
        if wrong_ascii_name(self.name):  # the name of a file, or of nothing
            return {}
        try:
            return dict(json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}


def known() -> list[str]:
    """Return the names of the clusters that were used from this machine."""
    return sorted(path.parent.name for path in (home() / "clusters").glob("*/cluster.json"))


def note_of(machine: Machine, identity: str = "") -> dict[str, str]:
    """Return what is remembered of a machine, and by what it is known again."""
    return {
        "name": machine.name,
        "address": str(machine.address),
        "private": str(machine.private),
        "user": machine.user,
        "key": str(machine.key) if machine.key else "",
        "identity": identity or machine.identity,
    }


def machine_of(told: Mapping[str, str]) -> Machine:
    """Return a machine that is remembered."""
    return Machine(
        told["name"],
        Address.parse(told["address"]),
        Address.parse(told["private"]),
        told["user"],
        Path(told["key"]) if told["key"] else None,
        identity=told.get("identity", ""),  # an earlier version did not note it
    )


def sharing(name: str, machines: Sequence[Machine]) -> dict[str, list[str]]:
    """Return which other clusters that are known here have some of these machines."""
    mine = {str(machine.private): machine.name for machine in machines}
    found: dict[str, list[str]] = {}
    for other in known():
        if other != name:
            told = ClusterFiles(other).recall().get("machines", ())
            shared = [mine[one["private"]] for one in told if one["private"] in mine]
            if shared:
                found[other] = shared
    return found
