"""What shows a run: the interface, those of text, and a guard that keeps them from harming it."""

from __future__ import annotations

import abc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from flambe.logging import redact
from flambe.logging.plain import plain
from flambe.progress import (
    RunFolder,
    RunState,
    StageState,
    Status,
    VariantState,
    best_so_far,
    best_variant,
    choices_text,
    count_text,
    figure_text,
)

_log = logging.getLogger(__name__)

PROGRESS_PERIOD = 10.0  # seconds between two lines of progress


class Observer(Protocol):
    """Shows how a run goes, and changes nothing. Called from several threads."""

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """The run begins; the state and the variants are live: they change during the run."""

    def changed(self) -> None:
        """Something changed in the state or the variants."""

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """A component printed or logged a line."""

    def working(self, variant: VariantState | None, text: str) -> None:
        """A component printed part of a line, such as a progress bar.

        The next line of the variant, or the next call, replaces it.
        """

    def note(self, text: str) -> None:
        """A message for the user."""

    def ended(self) -> None:
        """The run is over; its status says how."""


class TextObserver(abc.ABC):
    """Shows a run in lines of text: an :class:`Observer` that needs to know only where they go."""

    def __init__(self) -> None:
        self.folder: RunFolder | None = None
        self.run: RunState | None = None
        self.variants: Mapping[str, VariantState] = {}
        self._stages: dict[str, Status] = {}
        self._progress_at = 0.0  # when the last line of progress was shown
        self._working_at: dict[str, float] = {}
        self._lock = threading.RLock()

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Show a line."""

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Show where the results will be."""
        self.folder, self.run, self.variants = folder, run, variants
        self.say(f"{run.name}: results in {short_path(folder.root)}")

    def note(self, text: str) -> None:
        """Show a message about the run itself."""
        self.say(redact.hide(text))

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Show a line of a component."""
        self.component_line(variant, plain(redact.hide(text)))

    def component_line(self, variant: VariantState | None, text: str, style: str = "") -> None:
        """Show text of a component, with the name of the variant in front."""
        self.say(f"{variant_label(variant)} | {text}" if variant is not None else text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """Show the unfinished line of a component from time to time."""
        now, identity = time.monotonic(), variant.id if variant is not None else ""
        if variant and now - self._working_at.setdefault(identity, now) > PROGRESS_PERIOD:
            self._working_at[identity] = now
            self.component_line(variant, plain(redact.hide(text)))

    def changed(self) -> None:
        """Show what changed: stages immediately, progress from time to time."""
        if self.run is None:
            return
        with self._lock:
            for stage in self.run.stages:
                if stage.status is not self._stages.get(stage.name, Status.WAITING):
                    self._stages[stage.name] = stage.status
                    if stage.runs:
                        self.stage_changed(stage)
            self.progress()

    def stage_changed(self, stage: StageState) -> None:
        """Show the status of a stage."""
        self._progress_at = time.monotonic()
        self.say(f"{stage.name}: {stage.status.value}, {self.counted(stage)}")

    def progress(self) -> None:
        """Show how many variants of the running stages are done."""
        now = time.monotonic()
        if self.run is not None and now - self._progress_at > PROGRESS_PERIOD:
            self._progress_at = now
            for stage in self.run.stages:
                if stage.status is Status.RUNNING:
                    self.say(f"{stage.name}: {self.counted(stage)}{self.best_so_far(stage)}")

    def variants_of(self, stage: StageState) -> list[VariantState]:
        """Return the variants of a stage."""
        return [variant for variant in list(self.variants.values()) if variant.stage == stage.name]

    def counted(self, stage: StageState) -> str:
        """Return ``3 of 12 variants done, 2 running``."""
        return count_text(stage, self.variants_of(stage))

    def best_so_far(self, stage: StageState) -> str:
        """Return the best variant of a stage so far, as the end of a line."""
        best = best_so_far(self.variants_of(stage))
        return f", best {best[0]} ({variant_label(best[1], stage=False)})" if best else ""

    @abc.abstractmethod
    def ended(self) -> None:
        """Show how the run ended."""


class LogObserver(TextObserver):
    """Writes how a run goes to the log: for runs that no command shows.

    Parameters
    ----------
    log
        The logger; the messages are of level INFO.
    """

    def __init__(self, log: logging.Logger = _log) -> None:
        super().__init__()
        self._log = log

    def say(self, text: str) -> None:
        """Log it."""
        self._log.info("%s", text)

    def ended(self) -> None:
        """Log how it ended, and which variant is the best."""
        assert self.run is not None
        self.say(f"{self.run.name}: {self.run.outcome}")
        if (best := best_variant(self.run, list(self.variants.values()))) is not None:
            self.say(f"the best: {variant_label(best)}: {figure_text(best.metric)}")


def variant_label(variant: VariantState, *, stage: bool = True) -> str:
    """Return the name of a variant for people: ``train lr=0.1,n=2``."""
    choices = plain(choices_text(variant.choices))
    return f"{variant.stage} {choices}".strip() if stage else choices or variant.stage


def short_path(path: Path) -> Path:
    """Return a path as one types it here: relative, if it is below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class GuardedObserver:
    """Calls an observer; an exception that it raises is logged, and costs no result.

    After its first failure, the observer is only called at the end of the run.

    Parameters
    ----------
    observer
        The observer. It may have a method ``close``, which gives back the terminal.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failed = False

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """See :class:`Observer`."""
        self._call(lambda: self._observer.begun(folder, run, variants))

    def changed(self) -> None:
        """See :class:`Observer`."""
        if not self._failed:
            self._call(self._observer.changed)

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """See :class:`Observer`."""
        if not self._failed:
            self._call(lambda: self._observer.line(variant, level, text))

    def working(self, variant: VariantState | None, text: str) -> None:
        """See :class:`Observer`; an observer may be without it."""
        if not self._failed and hasattr(self._observer, "working"):
            self._call(lambda: self._observer.working(variant, text))

    def note(self, text: str) -> None:
        """See :class:`Observer`."""
        if not self._failed:
            self._call(lambda: self._observer.note(text))

    def ended(self) -> None:
        """See :class:`Observer`."""
        self._call(self._observer.ended)

    def close(self) -> None:
        """Close the observer, which gives back the terminal."""
        if (close := getattr(self._observer, "close", None)) is not None:
            self._call(close)

    def _call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except (Exception, SystemExit) as error:
            if not self._failed:
                self._failed = True
                _log.warning(
                    "the run cannot be shown any more, and continues: %s: %s",
                    type(error).__name__,
                    error,
                )
                _log.debug("the display failed", exc_info=True)
                self.close()


def guard(observer: Observer) -> GuardedObserver:
    """Return the observer in a guard, of which it needs only one."""
    return observer if isinstance(observer, GuardedObserver) else GuardedObserver(observer)
