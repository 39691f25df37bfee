"""The state of a run while it is alive: in memory, on disk, and shown by the observer."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypedDict

from flambe._disk import Appender, retry_when_full
from flambe.experiment.observer import Observer
from flambe.experiment.variants.expansion import Variant
from flambe.logging import redact
from flambe.logging.capture import PROGRESS
from flambe.progress import (
    RunFolder,
    RunState,
    StageState,
    Status,
    VariantState,
    change_line,
    choices_text,
    host_name,
    steady_time,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

# Seconds between two writes of the state while variants report: at least, and at most. A reader on
# another host takes a run for dead that does not write its state.
STATE_PERIOD, BEAT_PERIOD = 0.5, 30.0
RESERVE = 32 * 1024  # bytes for the last state, where the disk is full


class VariantChanges(TypedDict, total=False):
    """The fields of :class:`VariantState` that change, by name."""

    status: Status
    stale: str
    reason: str
    metric: float | None
    best: float | None
    step: int
    seconds: float | None
    started: float | None
    ended: float | None
    host: str
    attempts: int
    error: str
    traceback: str
    kept: bool | None
    stored_bytes: int
    history: list[dict[str, object]]
    stopped_by: str


def _initial_state(variant: Variant) -> VariantState:
    return VariantState(
        variant.id,
        variant.stage,
        variant.name,
        choices=dict(variant.choices),
        parents=dict(variant.parents),
        base=variant.base,
        values=dict(variant.values),
        repetition=variant.repetition,
        seed=variant.seed if variant.group else None,
        group=variant.group,
        config_id=variant.config_id,
        code=dict(variant.code),
        data=dict(variant.data),
        packages=dict(variant.packages),
    )


def _differences(before: VariantState, entry: VariantState) -> dict[str, object]:
    """Return the fields that have changed: name → value now."""
    new, old = vars(entry), vars(before)
    return {name: value for name, value in new.items() if value != old[name]}


class Journal:
    """The state of one run, and of its variants.

    Attributes
    ----------
    run
        The state of the run.
    variants
        Id → what happened to a variant.
    """

    def __init__(self, folder: RunFolder, run: RunState, observer: Observer) -> None:
        self.folder = folder
        self.run = run
        self.observer = observer
        self.variants: dict[str, VariantState] = {}
        #: Id → what an earlier run wrote of variants that this one has not recorded yet.
        self._recorded: dict[str, VariantState] = {}
        self._lock = threading.RLock()
        self._written = 0.0
        self._lines = Appender(folder.variants, lines=True)
        #: Whether the run ends: it waits for nothing then.
        self._ending = False
        #: The last error of the disk.
        self.disk_error: OSError | None = None

    def _append(self, changes: Mapping[str, object]) -> None:
        line = change_line(changes).encode("utf-8")
        self._write_when_possible(lambda: self._lines.append(line))

    def _write_when_possible(self, write: Callable[[], None]) -> None:
        """Write; where the disk is full the run waits for room, and says so.

        The last error is kept, for Tune replaces it by errors of its own
        (test_a_disk_that_stays_full_ends_the_run_in_order).
        """
        patience = 0.0 if self._ending else None
        try:
            retry_when_full(write, self.folder.root, self.observer.note, host_name(), patience)
        except OSError as problem:
            self.disk_error = problem
            raise

    def begin(self) -> None:
        """Write the first state, and call the observer."""
        self.run.started, self.run.status = steady_time(), Status.RUNNING
        self._write_when_possible(self._begin)
        self.observer.begun(self.folder, self.run, self.variants)

    def _begin(self) -> None:
        self.folder.reserve.write_bytes(os.urandom(RESERVE))
        self.folder.write_state(self.run)

    def add(self, variant: Variant, **fields: Unpack[VariantChanges]) -> VariantState:
        """Record a variant, with the given fields of its state."""
        with self._lock:
            entry = replace(_initial_state(variant), **fields)
            if entry.status is Status.MASKED:
                entry.reason = self._why_masked(variant)
            self.variants[variant.id] = entry
            before = self._recorded.pop(variant.id, None)
            if before is None or before.stage != entry.stage:
                self._append(asdict(entry))
            elif changes := _differences(before, entry):
                self._append({"id": entry.id, **changes})
            return entry

    def resume(self, recorded: Mapping[str, VariantState]) -> None:
        """Continue the journal of an earlier run: of what it holds, only changes are written."""
        self._recorded = {identity: copy.copy(entry) for identity, entry in recorded.items()}

    def _why_masked(self, variant: Variant) -> str:
        """Return why a variant is not run: of the stages that it links to, what is missing."""
        for stage, identity in variant.parents.items():
            parent = self.variants.get(identity)
            if parent is None or parent.status is Status.MASKED:
                if parent is not None and parent.reason:
                    return parent.reason
                return f"{stage} was not run"
            name = f"{stage} {choices_text(parent.choices)}".strip()
            if parent.status is Status.FAILED:
                return f"{name} failed"
            if parent.kept is False:
                return f"{name} was not kept by reduce"
        return ""

    def mask(self, variant: Variant) -> None:
        """Record that a variant that waited for others will not be run."""
        reason = self._why_masked(variant)
        self.change(variant.id, status=Status.MASKED, reason=reason)

    def change(self, variant_id: str, **changes: Unpack[VariantChanges]) -> None:
        """Record what changed about a variant."""
        with self._lock:
            if self._ending:  # a stage that was interrupted has not stopped in time
                return
            entry = self.variants[variant_id]
            for name, value in changes.items():
                setattr(entry, name, value)
            self._append({"id": variant_id, **changes})
        self.publish()

    def forget(self, variant_id: str, reason: str = "") -> None:
        """Record that a variant of an earlier configuration is not part of this run, and why."""
        with self._lock:
            self._recorded.pop(variant_id, None)
            self._append({"id": variant_id, "gone": True, "reason": reason})

    def of(self, stage: str) -> list[VariantState]:
        """Return the variants of a stage."""
        with self._lock:
            return [entry for entry in self.variants.values() if entry.stage == stage]

    def stage(self, stage: StageState, status: Status) -> None:
        """Record the status of a stage."""
        with self._lock:
            stage.status = status
            if status is Status.RUNNING:
                stage.started = steady_time()
            elif status is not Status.WAITING:
                stage.ended = steady_time()
        self.publish(now=True)

    def publish(self, *, now: bool = False) -> None:
        """Write the state, not too often, and call the observer."""
        with self._lock:
            if now or time.monotonic() - self._written > STATE_PERIOD:
                self.write()
        self.observer.changed()

    def write(self) -> None:
        """Write the state."""
        with self._lock:
            self._count()
            self._write_when_possible(lambda: self.folder.write_state(self.run))
            self._written = time.monotonic()

    def _count(self) -> None:
        counts: dict[str, Counter[str]] = {}
        stored: Counter[str] = Counter()
        for entry in self.variants.values():
            counts.setdefault(entry.stage, Counter())[entry.status.value] += 1
            stored[entry.stage] += entry.stored_bytes
        for stage in self.run.stages:
            stage.counts = dict(counts.get(stage.name, {}))
            stage.stored_bytes = stored[stage.name]

    def end(self, status: Status, error: str = "") -> None:
        """Record how the run ended, if the disk takes it."""
        with self._lock:
            self.run.status, self.run.ended = status, steady_time()
            self.run.error = redact.hide(error)
            self._ending = True
            try:
                self.folder.reserve.unlink(missing_ok=True)
                self._write_end(status)
            except OSError as problem:
                self.observer.note(f"cannot record how the run ended: {problem}")
        self.observer.ended()

    def _write_end(self, status: Status) -> None:
        with contextlib.ExitStack() as stack:
            for stage in self.run.stages:
                if stage.status is Status.RUNNING:
                    stage.status, stage.ended = status, steady_time()
            running = [e for e in self.variants.values() if e.status is Status.RUNNING]
            for entry in running:
                entry.status = Status.INTERRUPTED
            stack.callback(self.write)
            for entry in running:
                self._append({"id": entry.id, "status": Status.INTERRUPTED})
            self._lines.close()

    def lines(self, lines: Sequence[tuple[str, str, str]]) -> None:
        """Pass lines of components to the observer; without lines, show that the run is alive."""
        with self._lock:
            if time.monotonic() - self._written > BEAT_PERIOD:
                self.write()
        for source, level, text in lines:
            if level == PROGRESS:
                self.observer.working(self.variants.get(source), text)
            else:
                self.observer.line(self.variants.get(source), level, text)
