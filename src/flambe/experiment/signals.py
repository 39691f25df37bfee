"""Ctrl-C, SIGTERM and a terminal that is closed: the run ends in order, wherever it stands."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from flambe.compile.component_errors import UserInterrupt

#: Seconds until an interruption that fell into an import is tried again.
AGAIN = 0.1


class Interruption:
    """Turns SIGINT, SIGTERM and SIGHUP into UserInterrupt, and remembers them.

    SIGHUP is left alone where it is ignored: ``nohup`` starts runs that outlive their terminal.

    An exception that is raised while a library is in a callback, or in code that is not Python, may
    be lost. :meth:`check` raises it again, at a place where it is not. One that falls into an
    import waits for its end: modules that are not Python print what is raised there, and go on.
    """

    def __init__(self) -> None:
        self.asked = self.raised = False
        #: Why the run cannot continue, if it was not the user who ended it.
        self.reason = ""
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        # Signals reach the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._earlier[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def halt(self, reason: str) -> None:
        """Interrupt the run, from any thread: what it needs is gone.

        Parameters
        ----------
        reason
            What is gone.
        """
        if not self.reason and self._earlier:
            self.reason = reason
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGTERM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if _imports(frame):
            again = threading.Timer(AGAIN, self._again, [number])
            again.daemon = True
            again.start()
            return
        self.raised = True
        raise UserInterrupt

    def _again(self, number: int) -> None:
        main = threading.main_thread().ident
        if main is not None and self._earlier and not self.raised:
            signal.pthread_kill(main, number)

    def check(self) -> None:
        """Raise UserInterrupt, if an interruption was asked for."""
        if self.asked:
            self.raised = True
            raise UserInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Whether what runs is, or was called by, an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


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
