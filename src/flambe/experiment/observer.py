"""What shows a run: the interface, one that logs, and a guard that keeps it from harming a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from flambe.progress import RunFolder, RunState, VariantState

_log = logging.getLogger(__name__)


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


class LogObserver:
    """Writes how a run goes to the log: for runs that no command shows."""

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Log where the results will be."""
        self.run = run
        _log.info("%s: results in %s", run.name, folder.root)

    def changed(self) -> None:
        """Do nothing."""

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Log it."""
        _log.info("%s | %s", f"{variant.stage}/{variant.name}" if variant else "", text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Log it."""
        _log.info("%s", text)

    def ended(self) -> None:
        """Log how it ended."""
        _log.info("%s: %s", self.run.name, self.run.outcome)


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
