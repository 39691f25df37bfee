"""An observer that cannot harm the run that it shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flambe.experiment.journal import Observer
from flambe.progress import RunFolder, RunState, VariantState

_log = logging.getLogger(__name__)


class GuardedObserver:
    """Passes on what an observer is told; what it raises is logged, and costs no result.

    After its first failure it is told nothing more but how the run ended.

    Parameters
    ----------
    observer
        The observer. Where it has a method ``close``, that gives back what it shows on.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._failed = False

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """See :class:`Observer`."""
        self._call("begun", folder, run, variants)

    def changed(self) -> None:
        """See :class:`Observer`."""
        if not self._failed:
            self._call("changed")

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """See :class:`Observer`."""
        if not self._failed:
            self._call("line", variant, level, text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """See :class:`Observer`."""
        if not self._failed and hasattr(self._observer, "working"):
            self._call("working", variant, text)

    def note(self, text: str) -> None:
        """See :class:`Observer`."""
        if not self._failed:
            self._call("note", text)

    def ended(self) -> None:
        """See :class:`Observer`."""
        self._call("ended")

    def close(self) -> None:
        """Give back what the observer shows on."""
        if hasattr(self._observer, "close"):
            self._call("close")

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            getattr(self._observer, name)(*arguments)
        except (Exception, SystemExit) as error:
            if not self._failed:
                self._failed = True
                told = "the run cannot be shown any more, and continues: %s: %s"
                _log.warning(told, type(error).__name__, error)
                _log.debug("the display failed", exc_info=True)
                self.close()


def guarded(observer: Observer) -> GuardedObserver:
    """Return the observer, guarded once."""
    return observer if isinstance(observer, GuardedObserver) else GuardedObserver(observer)
