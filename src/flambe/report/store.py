"""The state of a run in memory, updated from its files while the run is in progress.

Each update that finds something new has a number, its revision. Everything that changes carries
the revision of its last change, so that a page gets only what is newer than the one it knows.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from flambe.progress import (
    NOT_FINITE,
    RunFolder,
    RunState,
    Status,
    Tail,
    VariantState,
    apply_line,
    finite,
    is_alive,
    with_names,
)
from flambe.report.payloads import RunSummary, StageSummary

_T = TypeVar("_T")
_P = ParamSpec("_P")

FRESH_SECONDS = 0.2  # during which the files are not read again
#: The fields of a variant that can change, and are sent to pages.
CHANGING = (
    "status",
    "metric",
    "best",
    NOT_FINITE,
    "step",
    "started",
    "ended",
    "host",
    "kept",
    "stale",
    "reason",
    "attempts",
    "history",
    "stopped_by",
    "error",
)


@dataclass
class Curve:
    """The metric of a variant over its steps, and the revision of each point."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    revisions: array[int] = field(default_factory=lambda: array("q"))
    #: The revision in which points were removed: after a failure, steps are repeated.
    rewound: int = 0

    def add(self, step: int, value: float, revision: int) -> None:
        """Add a point; it replaces the points of this step and of later ones."""
        if self.steps and step <= self.steps[-1]:
            keep = bisect.bisect_left(self.steps, step)
            del self.steps[keep:], self.values[keep:], self.revisions[keep:]
            self.rewound = revision
        self.steps.append(step)
        self.values.append(value)
        self.revisions.append(revision)

    def since(self, revision: int) -> list[tuple[int, float | None]]:
        """Return the points that are newer than a revision."""
        is_rewound = self.rewound > revision
        first = 0 if is_rewound else bisect.bisect_right(self.revisions, revision)
        return [
            (step, value if math.isfinite(value) else None)
            for step, value in zip(self.steps[first:], self.values[first:], strict=True)
        ]


@dataclass
class Row:
    """A variant, its curve, and the revision of each of its fields.

    Attributes
    ----------
    variant, curve
        The variant.
    first_revision
        The revision that found it.
    revision
        The revision of the latest line about it.
    field_revisions
        Field → the revision of its present value.
    """

    variant: VariantState
    first_revision: int
    revision: int = 0
    curve: Curve = field(default_factory=Curve)
    field_revisions: dict[str, int] = field(default_factory=dict)


@dataclass
class Summaries:
    """What was made of one revision, shared by all pages that ask for it."""

    run: RunSummary | None = None
    hosts: list[dict[str, object]] | None = None
    stages: dict[str, StageSummary] = field(default_factory=dict)


class Store:
    """The run in a folder.

    Parameters
    ----------
    root
        The folder; it may be empty or missing.

    Attributes
    ----------
    epoch
        Changes when pages must start over, since the run did.
    revision
        The number of the latest update that found something new.
    """

    def __init__(self, root: str | Path) -> None:
        self.folder = RunFolder(Path(root).absolute())
        self.run: RunState | None = None
        self.hosts: dict[str, dict[str, object]] = {}
        self.revision = 0
        self._lock = threading.RLock()
        self._read_at = 0.0
        self._state_stamp: tuple[int, int] | None = None
        self._alive = True
        self._summaries = Summaries()
        self._summaries_version: tuple[object, ...] = ()
        self._reset()
        self._lines = Tail(self.folder.variants)
        self._loads = Tail(self.folder.hosts)

    def _reset(self) -> None:
        self.epoch = uuid.uuid4().hex[:8]
        self.rows: dict[str, Row] = {}
        self.order: dict[str, list[str]] = {}
        self._variants: dict[str, VariantState] = {}

    # -- reading ------------------------------------------------------------------------------

    def refresh(self, *, now: bool = False) -> None:
        """Read what is new in the files, unless that was done a moment ago."""
        with self._lock:
            if now or time.monotonic() - self._read_at > FRESH_SECONDS:
                revision = self.revision + 1
                if any([self._read_state(), self._read_variants(revision), self._read_hosts()]):
                    self.revision = revision
                self._read_at = time.monotonic()

    def read(
        self,
        function: Callable[Concatenate[Store, _P], _T],
        *arguments: _P.args,
        **options: _P.kwargs,
    ) -> _T:
        """Call a function with this store, up to date and locked; return its result."""
        with self._lock:
            self.refresh()
            return function(self, *arguments, **options)

    def summaries(self) -> Summaries:
        """Return the summaries of this revision that were made so far.

        They are made again every second, as they may contain durations.
        """
        version = (self.epoch, self.revision, self.status, int(time.monotonic()))
        if version != self._summaries_version:
            self._summaries_version, self._summaries = version, Summaries()
        return self._summaries

    def _read_state(self) -> bool:
        try:
            status = self.folder.state.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        alive = self._is_alive()
        same = stamp == self._state_stamp and alive == self._alive
        if same and stamp is not None:
            return False
        run, before = self.folder.read_state(), self.run
        if same and run == before:  # no state; or the previous file, until that is removed too
            return False
        if run is not None or stamp is None:  # after a failed read, the last state is kept
            self.run = run
        if run is not None and before is not None and run.started != before.started:
            # The run started again, perhaps in files that look like the previous ones.
            self._lines, self._loads = Tail(self.folder.variants), Tail(self.folder.hosts)
            self._reset()
        self._state_stamp, self._alive = stamp, self._is_alive()
        return True

    def _is_alive(self) -> bool:
        """Whether the run may still be in progress: its process lives, or wrote not long ago."""
        return self.run is None or is_alive(self.run)

    def _read_variants(self, revision: int) -> bool:
        changed, generation = False, self._lines.generation
        for line in self._lines.read():
            if self._lines.generation != generation:
                generation = self._lines.generation
                self._reset()
            changed = True
            self._apply(line, revision)
        if self._lines.generation != generation:  # the file was replaced by an empty one
            self._reset()
            changed = True
        return changed

    def _apply(self, line: Mapping[str, object], revision: int) -> None:
        before = not_finite(self._variants.get(str(line.get("id"))))
        identity = apply_line(self._variants, line)
        if identity is None:
            return
        variant = self._variants.get(identity)
        if variant is None:  # it was removed from the run: pages must start over
            self.epoch = uuid.uuid4().hex[:8]
            removed = self.rows.pop(identity)
            self.order[removed.variant.stage].remove(identity)
            return
        variant.choices = {name: _json_choice(value) for name, value in variant.choices.items()}
        row = self.rows.get(identity)
        if row is None:
            row = self.rows[identity] = Row(variant, first_revision=revision)
            self.order.setdefault(variant.stage, []).append(identity)
            row.field_revisions = dict.fromkeys(CHANGING, revision)
        row.revision = revision
        for name in line:
            if name in row.field_revisions:
                row.field_revisions[name] = revision
        if not_finite(variant) != before:
            row.field_revisions[NOT_FINITE] = revision
        step, metric = line.get("step"), line.get("metric")
        if isinstance(step, int) and 0 < step < 2**63 and "metric" in line:
            row.curve.add(step, _as_float(metric), revision)

    def _read_hosts(self) -> bool:
        changed = False
        for line in self._loads.read():
            if isinstance(host := line.get("host"), str):
                self.hosts[host] = finite(line)
                changed = True
        return changed

    # -- the present state --------------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """The present revision as pages keep it: ``<epoch>-<revision>``."""
        return f"{self.epoch}-{self.revision}"

    @property
    def status(self) -> str:
        """The status of the run; ``interrupted`` if its process died without recording its end."""
        if self.run is None:
            return "empty"
        if self.run.status is Status.RUNNING and not self._alive:
            return Status.INTERRUPTED.value
        return self.run.status.value

    def of(self, stage: str) -> Iterator[Row]:
        """Yield the variants of a stage, in the order of the journal."""
        return (self.rows[identity] for identity in self.order.get(stage, ()))


def _as_float(value: object) -> float:
    """Return a value as a float; NaN if it is not a number, or too large."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def not_finite(variant: VariantState | None) -> dict[str, str]:
    """Return the figures of a variant that JSON cannot hold, by name: ``nan``, ``inf``."""
    if variant is None:
        return {}
    figures = {"metric": variant.metric, "best": variant.best}
    names = with_names(figures).get(NOT_FINITE)
    return {str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {}


def _json_choice(choice: object) -> object:
    """Return a hyper-parameter for JSON: ``inf`` as text."""
    return choice if not isinstance(choice, float) or math.isfinite(choice) else str(choice)
