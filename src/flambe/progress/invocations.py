"""How a run was made: each time that it was started, with what configuration, code and machine.

``invocations.jsonl`` has two lines for each start: what is known at once, and later what took a
moment to collect. Lines of the same ``id`` belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from flambe.progress.lines import read_lines
from flambe.progress.state import fitting_fields


@dataclass
class Repository:
    """A git repository that code or the configuration of a run comes from.

    Attributes
    ----------
    folder
        Its top folder.
    uses
        What of the run is in it: ``digits.yaml``, ``extension my_ext``.
    commit, branch, remote
        What is checked out, and where it is pushed to; empty where there is nothing.
    dirty
        Whether files differ from the commit, untracked ones included.
    diff
        How they differ, as ``git apply`` takes it; untracked source files included.
    untracked
        The names of files that git does not know; at most a hundred.
    omitted
        What is not in the diff: it is too long, or a file may hold secrets.
    problem
        Why git did not answer.
    """

    folder: str
    uses: list[str] = field(default_factory=list)
    commit: str = ""
    branch: str = ""
    remote: str = ""
    dirty: bool = False
    diff: str = ""
    untracked: list[str] = field(default_factory=list)
    omitted: str = ""
    problem: str = ""


@dataclass
class Invocation:
    """One start of a run.

    Attributes
    ----------
    id
        Tells it from the others of the run.
    at
        When, in seconds since the epoch.
    command, working_folder
        What was typed, and where.
    user, host
        Who typed it, on which machine; the run may be on another one.
    resumed
        Whether it continued an earlier run.
    overrides
        What the command line changed in the configuration.
    file, config, resolved
        The file of the configuration, its text, and the text after ``!include``, ``!env`` and
        overrides.
    seeds
        The seeds of the run.
    flambe, python, platform, cpus, gpus
        The versions, and the machine that the run is on.
    packages
        Name → version of flambe, the extensions and all that they need.
    repositories
        Where the configuration and the code come from.
    complete
        Whether all of it was collected: not where the run was killed in its first moments.
    problem
        Why something could not be collected.
    """

    id: str
    at: float | None = None
    command: list[str] = field(default_factory=list)
    working_folder: str = ""
    user: str = ""
    host: str = ""
    resumed: bool = False
    overrides: list[str] = field(default_factory=list)
    file: str = ""
    config: str = ""
    resolved: str = ""
    seeds: list[int] = field(default_factory=list)
    flambe: str = ""
    python: str = ""
    platform: str = ""
    cpus: int = 0
    gpus: list[str] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    repositories: list[Repository] = field(default_factory=list)
    complete: bool = False
    problem: str = ""


#: What is collected after the run has begun: the rest is in the first line.
COLLECTED = ("resolved", "gpus", "packages", "repositories", "complete", "problem")


def read_invocation(values: Mapping[str, object]) -> Invocation | None:
    """Return an invocation from its fields; those that hold what they may not are left out."""
    if not isinstance(values.get("id"), str):
        return None
    sound = fitting_fields({f.name: str(f.type) for f in fields(Invocation)}, values)
    entries: Any = sound.pop("repositories", ())
    sound["repositories"] = [
        Repository(**repository)
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and (repository := _repository(entry))
    ]
    return Invocation(**sound)


def _repository(entry: Mapping[str, object]) -> dict[str, Any]:
    sound = fitting_fields({f.name: str(f.type) for f in fields(Repository)}, entry)
    return sound if "folder" in sound else {}


def read_invocations(path: Path) -> list[Invocation]:
    """Return the starts of a run, the first one first; none of a run of an earlier version."""
    merged: dict[str, dict[str, object]] = {}
    for line in read_lines(path):
        if isinstance(identity := line.get("id"), str):
            merged.setdefault(identity, {}).update(line)
    starts = [read_invocation(values) for values in merged.values()]
    return [start for start in starts if start is not None]
