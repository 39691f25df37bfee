"""Ctrl-C and SIGTERM: the run ends in order, wherever it stands."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interruption:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, and remembers them.

    An exception that is raised while a library is in a callback, or in code that is not Python, may
    be lost. :meth:`check` raises it again, at a place where it is not.
    """

    def __init__(self) -> None:
        self.asked = False
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        # Signals reach the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def _interrupt(self, number: int, frame: Any) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt, if an interruption was asked for."""
        if self.asked:
            raise KeyboardInterrupt


@contextlib.contextmanager
def not_interrupted() -> Iterator[None]:
    """Let the last state be written though Ctrl-C is pressed again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
