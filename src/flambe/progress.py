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
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

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
    def config(self) -> Path:
        """The configuration as it was given."""
        return self.root / "experiment.yaml"

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
            except (OSError, ValueError, TypeError, KeyError):
                continue
        return None

    def read_variants(self) -> dict[str, VariantState]:
        """Return the variants by id, in the order in which they were first named."""
        known: dict[str, dict[str, Any]] = {}
        for line in read_lines(self.variants):
            identity = line.get("id")
            if not isinstance(identity, str):
                continue
            if line.get("gone"):
                known.pop(identity, None)
            elif identity in known or ("stage" in line and "name" in line):
                fields_known = {k: v for k, v in line.items() if k in _VARIANT_FIELDS}
                known.setdefault(identity, {}).update(fields_known)
        result = {}
        for identity, values in known.items():
            try:
                values["status"] = Status(values.get("status", "waiting"))
            except ValueError:  # a status of a newer version
                values["status"] = Status.WAITING
            result[identity] = VariantState(**values)
        return result


def change_line(changes: Mapping[str, Any]) -> str:
    """Return a line of the journal: the ``id`` of a variant, and the fields that changed.

    ``gone`` says that a variant of an earlier configuration is no part of the run any more.
    """
    return json.dumps(_finite(dict(changes))) + "\n"


_VARIANT_FIELDS = {f.name for f in fields(VariantState)}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a broken line is passed over."""
    try:
        stream = open(path, encoding="utf-8", errors="replace")
    except OSError:
        return
    with stream:
        for line in stream:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def end_last_line(path: Path) -> None:
    """End a last line that was cut off, so that the next one is not lost with it."""
    with contextlib.suppress(OSError), open(path, "rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows; a newer one may have written more."""
    names = {f.name for f in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _run_state(values: Mapping[str, Any]) -> RunState:
    known = _known(RunState, values)
    known["status"] = Status(known["status"])
    known["stages"] = [
        StageState(**{**_known(StageState, stage), "status": Status(stage["status"])})
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
