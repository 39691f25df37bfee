"""What is known of a run while it goes on: kept in memory, on disk, and told to the observer."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from flambe._disk import Appender, patiently
from flambe.experiment.variants.expansion import Variant, choices_text
from flambe.logging import redact
from flambe.logging.capture import PROGRESS
from flambe.progress import (
    RunFolder,
    RunState,
    StageState,
    Status,
    VariantState,
    change_line,
    host_name,
    steady_time,
)

_log = logging.getLogger(__name__)
# The state is written at most this often while variants report, in seconds.
STATE_PERIOD = 0.5
RESERVE = 32 * 1024  # bytes for the last state, where the disk is full
# … and at least this often: who reads it elsewhere takes a silent run for a dead one.
BEAT_PERIOD = 30.0


class Observer(Protocol):
    """Is told how a run goes; it shows, and changes nothing. Called from several threads."""

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """The run begins; the state and the variants are live and change while it goes on."""

    def changed(self) -> None:
        """Something changed in the state or the variants."""

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """A component printed or logged a line."""

    def working(self, variant: VariantState | None, text: str) -> None:
        """A component has something on a line that is not ended: a progress bar, for one.

        The next line of the variant, or the next of these, stands instead of it.
        """

    def note(self, text: str) -> None:
        """Something that people want to know."""

    def ended(self) -> None:
        """The run is over; its status says how."""


class LogObserver:
    """Tells how a run goes in the log: for runs that no command shows."""

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Say where the results will be."""
        self.run = run
        _log.info("%s: results in %s", run.name, folder.root)

    def changed(self) -> None:
        """Nothing is shown."""

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Log it."""
        _log.info("%s | %s", f"{variant.stage}/{variant.name}" if variant else "", text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """Log it."""
        _log.info("%s", text)

    def ended(self) -> None:
        """Log how it ended."""
        _log.info("%s: %s", self.run.name, self.run.outcome)


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
        self._lock = threading.RLock()
        self._written = 0.0
        self._lines = Appender(folder.variants, lines=True)
        #: Whether the run ends: nothing is waited for then.
        self._ending = False
        #: What the disk refused last.
        self.disk_error: OSError | None = None

    def _append(self, changes: Mapping[str, Any]) -> None:
        line = change_line(changes).encode("utf-8")
        self._patiently(lambda: self._lines.append(line))

    def _patiently(self, write: Callable[[], None]) -> None:
        """Write; where the disk is full the run waits for room, and says so.

        What is refused for good is remembered: Tune makes errors of its own of it.
        """
        patience = 0.0 if self._ending else None
        try:
            patiently(write, self.folder.root, self.observer.note, host_name(), patience)
        except OSError as problem:
            self.disk_error = problem
            raise

    def begin(self) -> None:
        """Write the first state, and tell the observer."""
        self.run.started, self.run.status = steady_time(), Status.RUNNING
        self._patiently(self._begin)
        self.observer.begun(self.folder, self.run, self.variants)

    def _begin(self) -> None:
        self.folder.reserve.write_bytes(os.urandom(RESERVE))
        self.folder.write_state(self.run)

    def add(self, variant: Variant, **known: Any) -> VariantState:
        """Note a variant, with all that is known of it."""
        with self._lock:
            entry = VariantState(
                variant.id,
                variant.stage,
                variant.name,
                choices=dict(variant.choices),
                parents=dict(variant.parents),
                base=variant.base,
                values=dict(variant.values),
                repetition=variant.repetition,
                config_id=variant.config_id,
                code=dict(variant.code),
                data=dict(variant.data),
            )
            for name, value in known.items():
                setattr(entry, name, value)
            if entry.status is Status.MASKED:
                entry.reason = self._why_masked(variant)
            self.variants[variant.id] = entry
            self._append(asdict(entry))
            return entry

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

    def change(self, variant_id: str, **changes: Any) -> None:
        """Note what changed about a variant."""
        with self._lock:
            entry = self.variants[variant_id]
            for name, value in changes.items():
                setattr(entry, name, value)
            self._append({"id": variant_id, **changes})
        self.publish()

    def forget(self, variant_id: str) -> None:
        """Note that a variant of an earlier configuration is no part of this run."""
        with self._lock:
            self._append({"id": variant_id, "gone": True})

    def of(self, stage: str) -> list[VariantState]:
        """Return the variants of a stage."""
        with self._lock:
            return [entry for entry in self.variants.values() if entry.stage == stage]

    def stage(self, stage: StageState, status: Status) -> None:
        """Note where a stage stands."""
        with self._lock:
            stage.status = status
            if status is Status.RUNNING:
                stage.started = steady_time()
            elif status is not Status.WAITING:
                stage.ended = steady_time()
        self.publish(now=True)

    def publish(self, *, now: bool = False) -> None:
        """Write the state, not too often, and tell the observer."""
        with self._lock:
            if now or time.monotonic() - self._written > STATE_PERIOD:
                self.write()
        self.observer.changed()

    def write(self) -> None:
        """Write the state."""
        with self._lock:
            self._count()
            self._patiently(lambda: self.folder.write_state(self.run))
            self._written = time.monotonic()

    def _count(self) -> None:
        counts: dict[str, Counter[str]] = {}
        for entry in self.variants.values():
            counts.setdefault(entry.stage, Counter())[entry.status.value] += 1
        for stage in self.run.stages:
            stage.counts = dict(counts.get(stage.name, {}))

    def end(self, status: Status, error: str = "") -> None:
        """Note how the run ended, if the disk takes it."""
        with self._lock:
            self.run.status, self.run.ended = status, steady_time()
            self.run.error = redact.hide(error)
            self._ending = True
            try:
                self.folder.reserve.unlink(missing_ok=True)
                self._write_end(status)
            except OSError as problem:
                self.observer.note(f"how the run ended cannot be written: {problem}")
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
        """Give lines of components to the observer; with none, the run is known to live."""
        with self._lock:
            if time.monotonic() - self._written > BEAT_PERIOD:
                self.write()
        for source, level, text in lines:
            if level == PROGRESS:
                self.observer.working(self.variants.get(source), text)
            else:
                self.observer.line(self.variants.get(source), level, text)
