"""Functions that may hang for good: they are called in a thread, and left behind there."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any

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


class Probe:
    """Calls a function in a thread of its own, which may hang for good; one at a time."""

    def __init__(self, what: str, function: Any) -> None:
        self.what = what
        self._function = function
        self._thread: threading.Thread | None = None
        self.problem = ""

    def __call__(self, default: Any, *arguments: Any, deadline: float = DEADLINE) -> Any:
        """Return what it returns; the default, and why in ``problem``, if it does not."""
        try:
            result, problem = self.ask(*arguments, deadline=deadline), ""
        except Exception as error:
            result, problem = default, f"{self.what} cannot be read: {reason_of(error)}"
        if problem != self.problem:
            say(problem or f"{self.what} can be read again")
            self.problem = problem
        return result

    def ask(self, *arguments: Any, deadline: float = DEADLINE) -> Any:
        """Return what it returns, or raise what it raises; Unreadable if it hangs."""
        results: list[Any] = []

        def call() -> None:
            try:
                results.append((self._function(*arguments), None))
            except Exception as error:
                results.append((None, error))

        if self._thread is not None and self._thread.is_alive():
            raise Unreadable("no answer")
        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()
        self._thread.join(deadline)
        if not results:
            raise Unreadable("no answer")
        result, error = results[0]
        if error is not None:
            raise error
        return result
