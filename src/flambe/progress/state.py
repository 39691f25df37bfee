"""The state of a run, its stages and its variants, and the lines of its journal."""

from __future__ import annotations

import enum
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from flambe.progress.figures import named_value, with_names
from flambe.progress.lines import parse_json

FORMAT = 1


class Status(str, enum.Enum):
    """Where a run, a stage or a variant stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    #: Ended before its own end, by a scheduler; its results count.
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    #: Never started: an ancestor was not kept by ``reduce``, or failed.
    MASKED = "masked"
    #: Finished by an earlier run, and used again.
    REUSED = "reused"

    @property
    def done(self) -> bool:
        """Whether there are results to build on."""
        return self in (Status.FINISHED, Status.STOPPED, Status.REUSED)


@dataclass
class VariantState:
    """One variant of a stage.

    Attributes
    ----------
    id
        Its stable identity: a hash of its configuration and its ancestors'.
    stage, name
        Its stage, and the name of its folder in there.
    choices
        Its hyper-parameters, those of its ancestors included, as text or numbers.
    parents
        Stage → id, of the variants that it links to directly.
    base, values
        Of a variant that a search suggested: what it was made from, and the values.
    repetition
        Of a variant that a search suggested: how often it had suggested the same values before.
    seed, group
        Where variants are run under several seeds: its own, and what it shares with the others of
        its configuration.
    config_id, code, data, packages
        What the identity is made of: its configuration with its ancestors', the code of its
        components, the content of what it reads, and the packages that its components come from,
        with their versions. Empty if it was not recorded.
    stale
        What had changed since the result was made, though it is used again; empty if nothing had.
    reason
        Why it was run, in a folder that had results; of one that is reused, what else is to be said
        about that; of one that is masked, why it is not run.
    metric, best, step
        The latest figure, the best so far (higher is better), and the number of steps done. A
        figure may be NaN or infinite; the best is a number, or None.
    seconds
        How long its steps took together; None if that was not recorded.
    stopped_by
        The limit that stopped it before its end, for people; empty if none did.
    history
        Of a member of a population, each time that it took the state of another: that member
        (``source``, an id), how many ``step`` that had done, and the ``values`` from then on.
    started, ended
        Seconds since the epoch.
    stored_bytes
        The bytes of the checkpoints that are kept of it; 0 until it ends.
    """

    id: str
    stage: str
    name: str
    status: Status = Status.WAITING
    choices: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    base: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    repetition: int = 0
    seed: int | None = None
    group: str = ""
    config_id: str = ""
    code: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    stale: str = ""
    reason: str = ""
    metric: float | None = None
    best: float | None = None
    step: int = 0
    seconds: float | None = None
    started: float | None = None
    ended: float | None = None
    host: str = ""
    attempts: int = 0
    error: str = ""
    traceback: str = ""
    kept: bool | None = None
    stored_bytes: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped_by: str = ""


@dataclass
class StageState:
    """One stage of the pipeline.

    Attributes
    ----------
    links
        The stages that it links to.
    runs
        Whether it has something to run; else it is built where it is used.
    reduce
        How many of its best variants flow on; None for all.
    counts
        Status → number of variants.
    stored_bytes
        The bytes of the checkpoints that are kept of its variants.
    """

    name: str
    tag: str = ""
    links: list[str] = field(default_factory=list)
    runs: bool = True
    status: Status = Status.WAITING
    reduce: int | None = None
    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    stored_bytes: int = 0


@dataclass
class RunState:
    """A run: what it is, where, and how far."""

    name: str
    format: int = FORMAT
    status: Status = Status.WAITING
    version: str = ""
    command: list[str] = field(default_factory=list)
    host: str = ""
    pid: int = 0
    started: float | None = None
    ended: float | None = None
    updated: float | None = None
    error: str = ""
    seed: int = 0
    #: The seeds that each variant is run under; empty for the one above alone.
    seeds: list[int] = field(default_factory=list)
    #: The address of the folder that holds the checkpoints, where it is not this one.
    storage: str = ""
    hosts: dict[str, dict[str, object]] = field(default_factory=dict)
    stages: list[StageState] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many variants failed for good."""
        return sum(stage.counts.get(Status.FAILED.value, 0) for stage in self.stages)

    @property
    def stored_bytes(self) -> int:
        """The bytes of the checkpoints that are kept."""
        return sum(stage.stored_bytes for stage in self.stages)

    @property
    def outcome(self) -> str:
        """How it stands, for people: ``finished``, or ``finished with 9 failed``."""
        return outcome(self.status, self.failed)

    def stage(self, name: str) -> StageState:
        """Return the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


def outcome(status: Status, failed: int) -> str:
    """Return how a run or a stage stands, of whose variants some failed."""
    partly = status is Status.FINISHED and failed
    return f"{status.value} with {failed} failed" if partly else status.value


def variants_of(lines: Iterable[Mapping[str, object]]) -> dict[str, VariantState]:
    """Return the variants of the lines of a journal by id, in the order of their first lines."""
    variants: dict[str, VariantState] = {}
    for line in lines:
        apply_line(variants, line)
    return variants


def apply_line(variants: dict[str, VariantState], line: Mapping[str, object]) -> str | None:
    """Bring variants up to date with a line of the journal; return the id that it is about.

    None if it is about an unknown variant: such a line is ignored.
    """
    identity = line.get("id")
    if not isinstance(identity, str):
        return None
    if line.get("gone"):
        return identity if variants.pop(identity, None) else None
    if identity not in variants:
        stage, name = line.get("stage"), line.get("name")
        if not (isinstance(stage, str) and isinstance(name, str)):
            return None
        variants[identity] = VariantState(identity, stage, name)
    entry = variants[identity]
    for field_name, value in line.items():
        if field_name == "status":
            entry.status = _status(value)
        elif field_name in _CHANGING_FIELDS and _fits(_CHANGING_FIELDS[field_name], value):
            restored = finite(value) if isinstance(value, dict) else value
            setattr(entry, field_name, named_value(field_name, restored, line))
    return identity


def _status(value: object) -> Status:
    try:
        return Status(value)
    except ValueError:  # one of a newer version
        return Status.WAITING


def change_line(changes: Mapping[str, object]) -> str:
    """Return a line of the journal: the ``id`` of a variant, and the fields that changed.

    What is not finite is null in it, and named beside it: see :mod:`flambe.progress.figures`.

    ``gone`` says that a variant of an earlier configuration is no longer part of the run.
    """
    return json.dumps(finite(with_names(changes))) + "\n"


def _is_number(value: object) -> bool:
    most = sys.float_info.max
    return isinstance(value, int | float) and -most <= value <= most


def _all(kind: type[object], values: Iterable[object]) -> bool:
    return all(isinstance(value, kind) for value in values)


# What a field may hold, by its annotation: files are read that others may have written, or cut.
_FITS: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and -(2**63) <= value < 2**63,
    "bool": lambda value: isinstance(value, bool),
    "int | None": lambda value: value is None or _fits("int", value),
    "bool | None": lambda value: value is None or isinstance(value, bool),
    "float | None": lambda value: value is None or _is_number(value),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: isinstance(value, dict) and _all(str, value.values()),
    "dict[str, int]": lambda value: isinstance(value, dict) and _all(int, value.values()),
    "dict[str, dict[str, object]]": lambda value: (
        isinstance(value, dict) and _all(dict, value.values())
    ),
    "list[dict[str, Any]]": lambda value: isinstance(value, list) and _all(dict, value),
    "list[int]": lambda value: isinstance(value, list) and all(_fits("int", v) for v in value),
    "list[str]": lambda value: isinstance(value, list) and _all(str, value),
}


def _fits(kind: str, value: object) -> bool:
    return _FITS[kind](value)


# The stage is what the first line says: readers keep variants by their stages.
_CHANGING_FIELDS = {
    f.name: str(f.type) for f in fields(VariantState) if f.name not in ("id", "stage")
}


def host_name() -> str:
    """Return what this host is called in its run: on a cluster, by its role."""
    return os.environ.get("FLAMBE_HOST") or socket.gethostname()


def _sound_fields(kind: type[RunState] | type[StageState], values: object) -> dict[str, Any]:
    """Return the fields that this version has, and that hold what they may.

    A newer version may have written more.

    Raises
    ------
    TypeError
        If it is not an object.
    """
    if not isinstance(values, dict):
        raise TypeError(f"expected an object, not {type(values).__name__}")
    return fitting_fields({f.name: str(f.type) for f in fields(kind)}, values)


def fitting_fields(types: Mapping[str, str], values: Mapping[str, object]) -> dict[str, Any]:
    """Return the values of fields that hold what they may, given the annotation of each."""
    return {
        name: finite(value)
        for name, value in values.items()
        if name in types and (types[name] not in _FITS or _fits(types[name], value))
    }


def read_state_text(text: str) -> RunState:
    """Return the state of a run that its file holds.

    Raises
    ------
    ValueError, TypeError, KeyError, RecursionError
        If it holds none.
    """
    return _run_state(parse_json(text))


def _run_state(values: object) -> RunState:
    run = _sound_fields(RunState, values)
    run["status"] = _status(run["status"])
    run["stages"] = [
        StageState(**{**_sound_fields(StageState, stage), "status": _status(stage["status"])})
        for stage in run["stages"]
    ]
    return RunState(**run)


def finite(value: object) -> Any:
    """Return the value as strict JSON takes it: what no float holds becomes null."""
    if isinstance(value, int | float):
        return value if _is_number(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
