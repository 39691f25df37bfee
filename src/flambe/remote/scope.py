"""What is cancelled together: the commands of a fan-out, when it is interrupted."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

from flambe.errors import RemoteError


class Scope:
    """The commands that run on behalf of one fan-out, and of those inside it.

    Ctrl-C reaches the main thread only: without this, the threads of a fan-out would go on to the
    end of their work, and whoever interrupted it would wait for that.
    """

    def __init__(self, parent: Scope | None = None) -> None:
        self.cancelled: bool = parent.cancelled if parent is not None else False
        self._ends: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        if parent is not None:
            parent.enter(self.cancel)

    def enter(self, end: Callable[[], None]) -> int:
        """Note what ends something that begins; return a token for :meth:`leave`.

        Raises
        ------
        RemoteError
            If all was cancelled already.
        """
        with self._lock:
            if not self.cancelled:
                self._ends[id(end)] = end
                return id(end)
        raise RemoteError("this machine", "interrupted")

    def leave(self, token: int) -> None:
        """Note that it is over."""
        with self._lock:
            self._ends.pop(token, None)

    def cancel(self) -> None:
        """End all that runs, and let nothing begin."""
        with self._lock:
            self.cancelled = True
            ends = list(self._ends.values())
        for end in ends:
            end()


current: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("scope", default=None)
