"""What a run has written, kept in memory and brought up to date as the run goes on.

Everything that changes gets the number of the look that found it, so that a page can be told just
what is new since the number that it knows.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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

_T = TypeVar("_T")

FRESH = 0.2  # seconds for which what was read counts as new
#: What can change about a variant, and is sent to pages.
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
    "error",
)


@dataclass
class Curve:
    """The metric of a variant over its steps, and the look that found each point."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    looks: array[int] = field(default_factory=lambda: array("q"))
    #: The look that found that points were taken back: after a failure steps are done again.
    rewound: int = 0

    def add(self, step: int, value: float, look: int) -> None:
        """Add a point; what was known of this step and later ones is replaced."""
        if self.steps and step <= self.steps[-1]:
            keep = bisect.bisect_left(self.steps, step)
            del self.steps[keep:], self.values[keep:], self.looks[keep:]
            self.rewound = look
        self.steps.append(step)
        self.values.append(value)
        self.looks.append(look)

    def since(self, look: int) -> list[tuple[int, float | None]]:
        """Return the points that were found after a look."""
        first = 0 if self.rewound > look else bisect.bisect_right(self.looks, look)
        return [
            (step, value if math.isfinite(value) else None)
            for step, value in zip(self.steps[first:], self.values[first:], strict=True)
        ]


@dataclass
class Row:
    """A variant, its curve, and the look that found the latest value of each of its fields.

    ``born`` is the look that found it, ``look`` the one that found the latest line about it.
    """

    variant: VariantState
    born: int
    look: int = 0
    curve: Curve = field(default_factory=Curve)
    looks: dict[str, int] = field(default_factory=dict)


class Store:
    """The run in a folder.

    Parameters
    ----------
    root
        The folder; it may be empty, or not there yet.

    Attributes
    ----------
    epoch
        Changes when what was told before is not true any more: the run was started anew.
    look
        The number of the latest look that found something.
    """

    def __init__(self, root: str | Path) -> None:
        self.folder = RunFolder(Path(root).absolute())
        self.run: RunState | None = None
        self.hosts: dict[str, dict[str, Any]] = {}
        self.look = 0
        self._lock = threading.RLock()
        self._read = 0.0
        self._state_stamp: tuple[int, int] | None = None
        self._alive = True
        self._summaries: dict[Any, Any] = {}
        self._summaries_of: tuple[Any, ...] = ()
        self._forget()
        self._lines = Tail(self.folder.variants)
        self._loads = Tail(self.folder.hosts)

    def _forget(self) -> None:
        self.epoch = uuid.uuid4().hex[:8]
        self.rows: dict[str, Row] = {}
        self.order: dict[str, list[str]] = {}
        self._variants: dict[str, VariantState] = {}

    # -- reading ------------------------------------------------------------------------------

    def refresh(self, *, now: bool = False) -> None:
        """Read what is new, unless that was done a moment ago."""
        with self._lock:
            if now or time.monotonic() - self._read > FRESH:
                look = self.look + 1
                if any([self._read_state(), self._read_variants(look), self._read_hosts()]):
                    self.look = look
                self._read = time.monotonic()

    def read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a function makes of the run as it is now; meanwhile nothing changes."""
        with self._lock:
            self.refresh()
            return function(self, *arguments)

    def summary(self, key: Any, function: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a function makes of the run as it is now; all who ask at one look share it.

        It is made again every second, as it may tell how long something takes.
        """
        place = (self.epoch, self.look, self.status, int(time.monotonic()))
        if place != self._summaries_of:
            self._summaries_of, self._summaries = place, {}
        if key not in self._summaries:
            self._summaries[key] = function(self, *arguments)
        result: _T = self._summaries[key]
        return result

    def _read_state(self) -> bool:
        try:
            found = self.folder.state.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
        except OSError:
            stamp = None
        alive = self._is_alive()
        same = stamp == self._state_stamp and alive == self._alive
        if same and stamp is not None:
            return False
        run, before = self.folder.read_state(), self.run
        if same and run == before:  # there is none; or the one before, until that is removed too
            return False
        if run is not None or stamp is None:  # what cannot be read leaves what was known
            self.run = run
        if run is not None and before is not None and run.started != before.started:
            # Begun again, perhaps in files that look like the ones before.
            self._lines, self._loads = Tail(self.folder.variants), Tail(self.folder.hosts)
            self._forget()
        self._state_stamp, self._alive = stamp, self._is_alive()
        return True

    def _is_alive(self) -> bool:
        """Whether the run can still go on: its process lives, or was heard of not long ago."""
        return self.run is None or is_alive(self.run)

    def _read_variants(self, look: int) -> bool:
        changed, generation = False, self._lines.generation
        for line in self._lines.read():
            if self._lines.generation != generation:
                generation = self._lines.generation
                self._forget()
            changed = True
            self._apply(line, look)
        if self._lines.generation != generation:  # it was replaced by nothing
            self._forget()
            changed = True
        return changed

    def _apply(self, line: dict[str, Any], look: int) -> None:
        before = not_finite(self._variants.get(str(line.get("id"))))
        identity = apply_line(self._variants, line)
        if identity is None:
            return
        variant = self._variants.get(identity)
        if variant is None:  # it is no part of the run any more: pages begin anew
            self.epoch = uuid.uuid4().hex[:8]
            gone = self.rows.pop(identity)
            self.order[gone.variant.stage].remove(identity)
            return
        variant.choices = {name: _shown(value) for name, value in variant.choices.items()}
        row = self.rows.get(identity)
        if row is None:
            row = self.rows[identity] = Row(variant, born=look)
            self.order.setdefault(variant.stage, []).append(identity)
            row.looks = dict.fromkeys(CHANGING, look)
        row.look = look
        for name in line:
            if name in row.looks:
                row.looks[name] = look
        if not_finite(variant) != before:
            row.looks[NOT_FINITE] = look
        step, metric = line.get("step"), line.get("metric")
        if isinstance(step, int) and 0 < step < 2**63 and "metric" in line:
            row.curve.add(step, _figure(metric), look)

    def _read_hosts(self) -> bool:
        found = False
        for line in self._loads.read():
            if isinstance(line.get("host"), str):
                self.hosts[line["host"]] = finite(line)
                found = True
        return found

    # -- what is known ------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """How the run stands; ``interrupted`` too where its process is gone without a word."""
        if self.run is None:
            return "empty"
        if self.run.status is Status.RUNNING and not self._alive:
            return Status.INTERRUPTED.value
        return self.run.status.value

    def of(self, stage: str) -> Iterator[Row]:
        """Yield the variants of a stage, in the order in which they were named."""
        return (self.rows[identity] for identity in self.order.get(stage, ()))


def _figure(value: Any) -> float:
    """Return a figure; what is no number, or too large for one, is not a number."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def not_finite(variant: VariantState | None) -> dict[str, str]:
    """Return the figures of a variant that JSON has no number for, by name: ``nan``, ``inf``."""
    if variant is None:
        return {}
    figures = {"metric": variant.metric, "best": variant.best}
    names = with_names(figures).get(NOT_FINITE)
    return {str(k): str(v) for k, v in names.items()} if isinstance(names, dict) else {}


def _shown(choice: Any) -> Any:
    """Return a hyper-parameter as JSON takes it: ``inf`` as text."""
    return choice if not isinstance(choice, float) or math.isfinite(choice) else str(choice)
