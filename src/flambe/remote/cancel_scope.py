"""What is cancelled together: the commands of a fan-out, when it is interrupted."""

from __future__ import annotations

import contextvars
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

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


def run(
    command: Sequence[str], *, timeout: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine to its end, as :func:`subprocess.run` does.

    Raises
    ------
    RemoteError
        If all was cancelled before; what is cancelled meanwhile is ended.
    """
    inside = current.get()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, **options) as process:
        token = 0
        try:
            token = inside.enter(process.terminate) if inside is not None else 0
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        finally:
            if inside is not None:
                inside.leave(token)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def sleep(seconds: float) -> None:
    """Wait, at most until all is cancelled."""
    inside, end = current.get(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (inside is not None and inside.cancelled):
        time.sleep(min(left, 0.1))
