"""The state of a run, as JSON that anyone may read while it goes on.

``state.json`` is small: the run and its stages. It is written beside and moved into place, and the
one before is kept, so that a reader always finds a whole one. What happens to variants is appended
to ``variants.jsonl``, a line per change: the first of a variant holds all that is known of it,
others what changed. A line that was cut off is passed over.

==================================  ===============================================================
``<run>/state.json``                the run, its stages, their counts (:class:`RunState`)
``<run>/variants.jsonl``            the variants and what happened to them (:class:`VariantState`)
``<run>/run.log``                   all that components printed and logged, with stage and variant
``<run>/experiment.yaml``           the configuration, as it was given
``<run>/hosts.jsonl``               how busy each host was, a line now and then
``<run>/<stage>/<variant>/``        ``config.yaml``, ``variant.log``, ``metrics.jsonl``,
                                    ``tensorboard/``, ``checkpoint/checkpoint.flambe/``
==================================  ===============================================================
"""

from __future__ import annotations

import contextlib
import enum
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT = 1
# The names in the folder of a variant.
VARIANT_CONFIG = "config.yaml"
VARIANT_LOG = "variant.log"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


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
    metric, best, step
        The latest figure, the best so far (higher is better), and the number of steps done.
    started, ended
        Seconds since the epoch.
    """

    id: str
    stage: str
    name: str
    status: Status = Status.WAITING
    choices: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    base: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    metric: float | None = None
    best: float | None = None
    step: int = 0
    started: float | None = None
    ended: float | None = None
    host: str = ""
    attempts: int = 0
    error: str = ""
    traceback: str = ""
    kept: bool | None = None


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
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    stages: list[StageState] = field(default_factory=list)

    def stage(self, name: str) -> StageState:
        """Return the stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclass(frozen=True)
class RunFolder:
    """Every path of a run on disk, named once."""

    root: Path

    @property
    def state(self) -> Path:
        """The state of the run."""
        return self.root / "state.json"

    @property
    def previous_state(self) -> Path:
        """The state before the latest."""
        return self.root / "state.previous.json"

    @property
    def variants(self) -> Path:
        """The journal of the variants."""
        return self.root / "variants.jsonl"

    @property
    def log(self) -> Path:
        """All that was printed and logged."""
        return self.root / "run.log"

    @property
    def hosts(self) -> Path:
        """How busy each host was."""
        return self.root / "hosts.jsonl"

    @property
    def config(self) -> Path:
        """The configuration as it was given."""
        return self.root / "experiment.yaml"

    @property
    def identity(self) -> Path:
        """What tells this folder from one of the same name on another host."""
        return self.root / "run.id"

    @property
    def resources(self) -> Path:
        """What was fetched."""
        return self.root / "resources"

    def variant(self, stage: str, name: str) -> Path:
        """Return the folder of a variant."""
        return self.root / stage / name

    def checkpoint(self, stage: str, name: str) -> Path:
        """Return the final checkpoint of a variant."""
        return self.variant(stage, name) / "checkpoint" / "checkpoint.flambe"

    # -- state --------------------------------------------------------------------------------

    def write_state(self, state: RunState) -> None:
        """Write the state beside, then move it into place."""
        state.updated = time.time()
        text = json.dumps(_finite(asdict(state)), indent=1)
        beside = self.state.with_suffix(f".{os.getpid()}.tmp")
        with open(beside, "w", encoding="utf-8") as stream:
            stream.write(text)
        if self.state.exists():
            os.replace(self.state, self.previous_state)
        os.replace(beside, self.state)

    def read_state(self) -> RunState | None:
        """Return the last good state, or None if there is none."""
        for path in (self.state, self.previous_state):
            try:
                return _run_state(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                continue
        return None

    def read_variants(self) -> dict[str, VariantState]:
        """Return the variants by id, in the order in which they were first named."""
        variants: dict[str, VariantState] = {}
        for line in read_lines(self.variants):
            apply_line(variants, line)
        return variants


def apply_line(variants: dict[str, VariantState], line: Mapping[str, Any]) -> str | None:
    """Bring variants up to date with a line of the journal; return the id that it is about.

    None if it is about no variant that is known: then it says nothing.
    """
    identity = line.get("id")
    if not isinstance(identity, str):
        return None
    if line.get("gone"):
        return identity if variants.pop(identity, None) else None
    if identity not in variants:
        if not (isinstance(line.get("stage"), str) and isinstance(line.get("name"), str)):
            return None
        variants[identity] = VariantState(identity, line["stage"], line["name"])
    entry = variants[identity]
    for name, value in line.items():
        if name == "status":
            entry.status = _status(value)
        elif name in _VARIANT_FIELDS and _fits(_VARIANT_FIELDS[name], value):
            setattr(entry, name, _finite(value) if isinstance(value, dict) else value)
    return identity


def _status(value: Any) -> Status:
    try:
        return Status(value)
    except ValueError:  # one of a newer version
        return Status.WAITING


def change_line(changes: Mapping[str, Any]) -> str:
    """Return a line of the journal: the ``id`` of a variant, and the fields that changed.

    ``gone`` says that a variant of an earlier configuration is no part of the run any more.
    """
    return json.dumps(_finite(dict(changes))) + "\n"


def _is_number(value: Any) -> bool:
    most = sys.float_info.max
    return isinstance(value, int | float) and -most <= value <= most


def _all(kind: type[Any], values: Any) -> bool:
    return all(isinstance(value, kind) for value in values)


# What a field may hold, by its annotation: files are read that others may have written, or cut.
_FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and -(2**63) <= value < 2**63,
    "bool": lambda value: isinstance(value, bool),
    "int | None": lambda value: value is None or _fits("int", value),
    "bool | None": lambda value: value is None or isinstance(value, bool),
    "float | None": lambda value: value is None or _is_number(value),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: isinstance(value, dict) and _all(str, value.values()),
    "dict[str, int]": lambda value: isinstance(value, dict) and _all(int, value.values()),
    "dict[str, dict[str, Any]]": lambda value: (
        isinstance(value, dict) and _all(dict, value.values())
    ),
    "list[str]": lambda value: isinstance(value, list) and _all(str, value),
}


def _fits(kind: str, value: Any) -> bool:
    return _FITS[kind](value)


_VARIANT_FIELDS = {f.name: str(f.type) for f in fields(VariantState)}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a broken line is passed over."""
    try:
        stream = open(path, encoding="utf-8", errors="replace")
    except OSError:
        return
    with stream:
        for line in stream:
            if (value := _object(line)) is not None:
                yield value


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Tail:
    """Reads what is appended to a file of JSON lines, each line once.

    Attributes
    ----------
    generation
        Counts how often the file was replaced or cut: what was read before is not true any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._offset = 0
        self._file = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the objects of the whole lines that are new; a broken one is passed over."""
        try:
            stream = open(self.path, "rb")
        except OSError:
            self._restart(0)
            return
        with stream:
            found = os.fstat(stream.fileno())
            if found.st_ino != self._file or found.st_size < self._offset:
                self._restart(found.st_ino)
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._offset += len(line)
                if (value := _object(line.decode("utf-8", "replace"))) is not None:
                    yield value

    def _restart(self, file: int) -> None:
        if self._offset:
            self.generation += 1
        self._offset, self._file = 0, file


def host_name() -> str:
    """Return what this host is called in its run: on a cluster, by its role."""
    return os.environ.get("FLAMBE_HOST") or socket.gethostname()


def end_last_line(path: Path) -> None:
    """End a last line that was cut off, so that the next one is not lost with it."""
    with contextlib.suppress(OSError), open(path, "rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")


def _known(kind: type[Any], values: Any) -> dict[str, Any]:
    """Return the fields that this version knows; a newer one may have written more.

    Raises
    ------
    TypeError
        If it is no object.
    """
    if not isinstance(values, dict):
        raise TypeError(f"expected an object, not {type(values).__name__}")
    known = {f.name: str(f.type) for f in fields(kind)}
    return {
        name: _finite(value)
        for name, value in values.items()
        if name in known and (known[name] not in _FITS or _fits(known[name], value))
    }


def _run_state(values: Any) -> RunState:
    known = _known(RunState, values)
    known["status"] = _status(known["status"])
    known["stages"] = [
        StageState(**{**_known(StageState, stage), "status": _status(stage["status"])})
        for stage in known["stages"]
    ]
    return RunState(**known)


def _finite(value: Any) -> Any:
    """Return the value as strict JSON takes it: what is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
