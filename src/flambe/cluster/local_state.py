"""What this machine keeps of its clusters: the files of each, named once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flambe._files import write_private
from flambe._grammar import NAME_HINT, wrong_ascii_name
from flambe.cluster.cluster_record import ClusterRecord
from flambe.cluster.machine import Machine
from flambe.errors import ConfigError, Problem, counted
from flambe.logging.console import home, home_folder


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
        What its name is unique in; see :attr:`flambe.cluster.Cluster.scope`.
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
        What tells its record from that of another cluster of the same name; mostly empty.
    """

    name: str
    variant: str = ""

    @classmethod
    def of(cls, key: str) -> ClusterFiles:
        """Return the files of the cluster that a person names: ``lab``, ``lab@us-west-2``.

        Raises
        ------
        ConfigError
            If several clusters that were used from this machine have that name.
        """
        name, at, selector = key.partition("@")
        records = _records(name)
        if at:
            exact = [files for files in records if files.variant == selector]
            records = exact or [files for files in records if selector in files.scope.values()]
        if len(records) > 1:
            raise ConfigError(_ambiguous(key, records))
        return records[0] if records else cls(key)

    @property
    def key(self) -> str:
        """The name of its record among all of this machine."""
        return f"{self.name}@{self.variant}" if self.variant else self.name

    @property
    def folder(self) -> Path:
        """Its folder.

        Raises
        ------
        ConfigError
            If that would be elsewhere.
        """
        if problem := wrong_ascii_name(self.name):
            raise ConfigError(Problem(f"cluster: {problem}", hint=NAME_HINT))
        return home() / "clusters" / self.key

    def make_folder(self) -> Path:
        """Make its folder, and return it."""
        return home_folder("clusters", self.key)

    @property
    def scope(self) -> dict[str, str]:
        """What the name is unique in, as it was recorded."""
        return dict(self.recall().scope)

    @property
    def known_hosts(self) -> Path:
        """The host keys of its machines."""
        return self.folder / "known_hosts"

    @property
    def setup_log(self) -> Path:
        """The output of its setup commands, the last time that they ran."""
        return self.folder / "setup.log"

    @property
    def record(self) -> Path:
        """The file of its record: which file describes it, and what its machines are."""
        return self.folder / "cluster.json"

    def remember(self, record: ClusterRecord) -> None:
        """Write the record."""
        content = json.dumps(record.to_json(), indent=1)
        write_private(self.make_folder() / self.record.name, content)

    def recall(self) -> ClusterRecord:
        """Return the record; an empty one if there is none."""
        if wrong_ascii_name(self.name):  # the name of a file, or of nothing
            return ClusterRecord()
        try:
            content: object = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ClusterRecord()
        return ClusterRecord.from_json(content)


def recorded_clusters() -> list[str]:
    """Return the names of the clusters that were used from this machine."""
    keys = _keys()
    names = [key.partition("@")[0] for key in keys]
    return [f"{key}@" if key in names and names.count(key) > 1 else key for key in keys]


def _keys() -> list[str]:
    return sorted(path.parent.name for path in (home() / "clusters").glob("*/cluster.json"))


def files_for(name: str, origin: ClusterOrigin) -> ClusterFiles:
    """Return the files of a cluster; among clusters of one name, each scope has its own.

    Parameters
    ----------
    name
        The name of the cluster.
    origin
        Where it is described. Earlier versions recorded no scope: the file tells such a cluster.
    """
    scope = origin.scope
    if not scope:
        return ClusterFiles(name)
    taken = set()
    for files in _records(name):
        record = files.recall()
        is_older = not record.scope and record.kind == origin.kind
        if record.scope == scope or (is_older and record.file in ("", origin.file)):
            return files
        taken.add(files.variant)
    if not taken:
        return ClusterFiles(name)
    short = re.sub(r"[^a-z0-9-]", "", next(iter(scope.values())))
    digest = hashlib.sha256(json.dumps(dict(scope), sort_keys=True).encode()).hexdigest()[:6]
    return ClusterFiles(name, short if short and short not in taken else f"{short}-{digest}")


def _exact(key: str) -> ClusterFiles:
    name, _, variant = key.partition("@")
    return ClusterFiles(name, variant)


def _records(name: str) -> list[ClusterFiles]:
    """Return the files of the clusters of a name, the one without a variant first."""
    records = [files for files in map(_exact, _keys()) if files.name == name]
    return [files for files in records if not files.recall().is_empty]


def _ambiguous(key: str, records: Sequence[ClusterFiles]) -> Problem:
    lines = []
    for files in records:
        record = files.recall()
        scope = ", ".join(record.scope.values())
        lines.append(f"{record.file or files.key}   ({scope or 'of an earlier version'})")
    text = f"{counted(len(records), 'cluster')} of this machine are called {key!r}"
    names = "\n        ".join(lines)
    return Problem(text, hint=f"give the file, or NAME@REGION or NAME@CREATOR:\n        {names}")


def shared_machines(files: ClusterFiles, machines: Sequence[Machine]) -> dict[str, list[str]]:
    """Return which of these machines other recorded clusters have: cluster → names."""
    names = {machine.private: machine.name for machine in machines}
    clusters: dict[str, list[str]] = {}
    for other in _keys():
        record = _exact(other).recall()
        # Machines that a provider made belong to one cluster; private addresses come again.
        if other == files.key or (files.scope and record.scope):
            continue
        if shared := [names[m.private] for m in record.machines if m.private in names]:
            clusters[other] = shared
    return clusters
