"""What this machine remembers of its clusters: files of each, named once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flambe._files import write_private
from flambe._grammar import NAME_HINT, wrong_ascii_name
from flambe.cluster.machine import Machine
from flambe.errors import ConfigError, Problem, counted
from flambe.logging.console import home, home_folder
from flambe.remote import Address


@dataclass(frozen=True)
class ClusterOrigin:
    """Where a cluster is described.

    Attributes
    ----------
    file
        The file; empty for a cluster that was made in Python.
    kind
        The name of its class.
    scope
        What its name is unique in; see :attr:`~flambe.cluster.Cluster.scope`.
    secrets
        The file of secrets that it was made with; ``down`` from another folder needs the same.
    """

    file: str = ""
    kind: str = ""
    scope: Mapping[str, str] = field(default_factory=dict)
    secrets: str = ""


@dataclass(frozen=True)
class ClusterFiles:
    """Every local path of one cluster.

    Attributes
    ----------
    name
        The name of the cluster.
    variant
        What tells its record from that of another cluster of the same name; mostly nothing.
    """

    name: str
    variant: str = ""

    @classmethod
    def of(cls, given: str) -> ClusterFiles:
        """Return the files of the cluster that a person names: ``lab``, ``lab@us-west-2``.

        Raises
        ------
        ConfigError
            If several clusters that were used from this machine have that name.
        """
        name, at, selector = given.partition("@")
        records = _records(name)
        if at:
            exact = [files for files in records if files.variant == selector]
            records = exact or [files for files in records if selector in files.scope.values()]
        if len(records) > 1:
            raise ConfigError(_ambiguous(given, records))
        return records[0] if records else cls(given)

    @property
    def key(self) -> str:
        """What its record is called among all of this machine."""
        return f"{self.name}@{self.variant}" if self.variant else self.name

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
        return home() / "clusters" / self.key

    def make_folder(self) -> Path:
        """Make its folder, and return it."""
        return home_folder("clusters", self.key)

    @property
    def scope(self) -> dict[str, str]:
        """Within what the name is that of this cluster, as it is remembered."""
        return dict(self.recall().get("scope", {}))

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
    """Return what the clusters that were used from this machine are called."""
    keys = _keys()
    names = [key.partition("@")[0] for key in keys]
    return [f"{key}@" if key in names and names.count(key) > 1 else key for key in keys]


def _keys() -> list[str]:
    return sorted(path.parent.name for path in (home() / "clusters").glob("*/cluster.json"))


def files_of(name: str, scope: Mapping[str, str], kind: str, file: str) -> ClusterFiles:
    """Return the files of a cluster; of those of one name, each scope has its own.

    Parameters
    ----------
    name, kind
        The name of the cluster, and of its class.
    scope
        Within what the name is its own: a region, whose it is. Empty where it is so everywhere.
    file
        The file that describes it: earlier versions noted no scope.
    """
    if not scope:
        return ClusterFiles(name)
    taken = set()
    for files in _records(name):
        note = files.recall()
        is_older = not note.get("scope") and note.get("kind") == kind
        if files.scope == scope or (is_older and note.get("file", "") in ("", file)):
            return files
        taken.add(files.variant)
    if not taken:
        return ClusterFiles(name)
    short = re.sub(r"[^a-z0-9-]", "", next(iter(scope.values())))
    digest = hashlib.sha256(json.dumps(scope, sort_keys=True).encode()).hexdigest()[:6]
    return ClusterFiles(name, short if short and short not in taken else f"{short}-{digest}")


def _exact(key: str) -> ClusterFiles:
    name, _, variant = key.partition("@")
    return ClusterFiles(name, variant)


def _records(name: str) -> list[ClusterFiles]:
    """Return the records of the clusters of a name, the one without a variant first."""
    records = [files for files in map(_exact, _keys()) if files.name == name]
    return [files for files in records if files.recall()]


def _ambiguous(given: str, records: Sequence[ClusterFiles]) -> Problem:
    lines = []
    for files in records:
        note = files.recall()
        scope = ", ".join(files.scope.values())
        lines.append(f"{note.get('file') or files.key}   ({scope or 'of an earlier version'})")
    text = f"{counted(len(records), 'cluster')} of this machine are called {given!r}"
    names = "\n        ".join(lines)
    return Problem(text, hint=f"give the file, or NAME@REGION or NAME@CREATOR:\n        {names}")


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


def sharing(files: ClusterFiles, machines: Sequence[Machine]) -> dict[str, list[str]]:
    """Return which other clusters that are known here have some of these machines."""
    mine = {str(machine.private): machine.name for machine in machines}
    found: dict[str, list[str]] = {}
    for other in _keys():
        note = _exact(other).recall()
        # Machines that a provider made belong to one cluster; private addresses come again.
        if other != files.key and not (files.scope and note.get("scope")):
            told = note.get("machines", ())
            shared = [mine[one["private"]] for one in told if one["private"] in mine]
            if shared:
                found[other] = shared
    return found
