"""Functions that may hang for good: they are called in a thread, and left behind there."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

DEADLINE = 35.0  # seconds that a probe has


def say(text: str) -> None:
    """Write a line to the log of this process, with the time."""
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        sys.stdout.flush()


def reason_of(error: Exception) -> str:
    """Return what an error says, for people."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


class Unreadable(Exception):
    """What was asked does not answer, or not what it should."""


class Probe(Generic[T]):
    """Calls a function in a thread of its own, which may hang for good; one at a time."""

    def __init__(self, subject: str, function: Callable[[], T]) -> None:
        self.subject = subject
        self._function = function
        self._thread: threading.Thread | None = None
        self.problem = ""

    def read(self, default: T, deadline: float = DEADLINE) -> T:
        """Return what it returns; the default, and why in ``problem``, if it does not."""
        try:
            result, problem = self.ask(deadline), ""
        except Exception as error:
            result, problem = default, f"{self.subject} cannot be read: {reason_of(error)}"
        if problem != self.problem:
            say(problem or f"{self.subject} can be read again")
            self.problem = problem
        return result

    def ask(self, deadline: float = DEADLINE) -> T:
        """Return what it returns, or raise what it raises; Unreadable if it hangs."""
        results: list[T] = []
        errors: list[Exception] = []

        def call() -> None:
            try:
                results.append(self._function())
            except Exception as error:
                errors.append(error)

        if self._thread is not None and self._thread.is_alive():
            raise Unreadable("no answer")
        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()
        self._thread.join(deadline)
        if errors:
            raise errors[0]
        if not results:
            raise Unreadable("no answer")
        return results[0]
