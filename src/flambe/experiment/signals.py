"""Ctrl-C, SIGTERM and a terminal that is closed: the run ends in order, at any point."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from flambe.compile.component_errors import UserInterrupt

#: Seconds until an interruption that fell into an import is raised again.
RETRY_SECONDS = 0.1

_Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class Interruption:
    """Turns SIGINT, SIGTERM and SIGHUP into UserInterrupt, and remembers them.

    SIGHUP stays ignored where it was: ``nohup`` starts runs that outlive their terminal.

    An exception that a signal handler raises while a library is in a callback, or in native code,
    may be lost. :meth:`check` raises it again at a point where it is not
    (test_a_run_that_is_interrupted). During an import it is raised only once the import is over:
    native modules print an exception that is raised there, and continue without it
    (test_an_interruption_waits_for_the_end_of_an_import).
    """

    def __init__(self) -> None:
        self.asked = self.raised = False
        #: Why the run cannot continue, where the user did not end it.
        self.reason = ""
        self._handlers: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Interruption:
        # Signals reach the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._handlers[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def halt(self, reason: str) -> None:
        """Interrupt the run, from any thread: it cannot continue.

        Parameters
        ----------
        reason
            Why.
        """
        if self.reason:
            return
        self.reason = reason
        main = threading.main_thread().ident
        if self._handlers and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)
        else:  # a run in another thread: check() raises it there
            self.asked = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if _is_import(frame):
            timer = threading.Timer(RETRY_SECONDS, self._retry, [number])
            timer.daemon = True
            timer.start()
            return
        self.raised = True
        raise UserInterrupt

    def _retry(self, number: int) -> None:
        main = threading.main_thread().ident
        if main is not None and self._handlers and not self.raised:
            signal.pthread_kill(main, number)

    def check(self) -> None:
        """Raise UserInterrupt, if an interruption was asked for."""
        if self.asked:
            self.raised = True
            raise UserInterrupt


def _is_import(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, is of an import.

    The frames are those of the main thread, which runs signal handlers between two of its own
    instructions: so the stack of the handler says what it interrupted.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def not_interrupted() -> Iterator[None]:
    """Ignore Ctrl-C, so that the last state is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
