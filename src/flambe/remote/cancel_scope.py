"""Scopes that are cancelled as one: the commands of a fan-out, when it is interrupted."""

from __future__ import annotations

import contextlib
import contextvars
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from flambe.errors import RemoteError


class CancelScope:
    """The commands that run on behalf of one fan-out, and of those inside it.

    Ctrl-C reaches the main thread only. Without this, the threads of a fan-out would continue to
    the end of their work, and the user would wait for that.
    """

    def __init__(self, parent: CancelScope | None = None) -> None:
        self.cancelled: bool = parent.cancelled if parent is not None else False
        self._ends: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        if parent is not None:
            parent.enter(self.cancel)

    def enter(self, end: Callable[[], None]) -> int:
        """Register what ends an operation that begins; return a token for :meth:`leave`.

        Raises
        ------
        RemoteError
            If the scope was cancelled already.
        """
        with self._lock:
            if not self.cancelled:
                self._ends[id(end)] = end
                return id(end)
        raise RemoteError("this machine", "interrupted")

    def leave(self, token: int) -> None:
        """Unregister an operation that is over."""
        with self._lock:
            self._ends.pop(token, None)

    def cancel(self) -> None:
        """End all operations, and let none begin."""
        with self._lock:
            self.cancelled = True
            ends = list(self._ends.values())
        for end in ends:
            end()


current: contextvars.ContextVar[CancelScope | None] = contextvars.ContextVar("scope", default=None)


@contextlib.contextmanager
def entered(end: Callable[[], None]) -> Iterator[None]:
    """Register an operation with the current scope, if there is one, as long as the block runs.

    Raises
    ------
    RemoteError
        If the scope was cancelled already; the operation is ended then.
    """
    scope = current.get()
    if scope is None:
        yield
        return
    try:
        token = scope.enter(end)
    except BaseException:
        end()
        raise
    try:
        yield
    finally:
        scope.leave(token)


def run(
    command: Sequence[str],
    *,
    timeout: float,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine to its end, in a session of its own.

    Raises
    ------
    RemoteError
        If the current scope was cancelled before; what is cancelled meanwhile is ended.
    subprocess.TimeoutExpired
        If it has not ended in time; it is killed.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,  # no terminal: an ssh to a jump host would ask there
    )
    with process:
        try:
            with entered(process.terminate):
                out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def sleep(seconds: float) -> None:
    """Wait, at most until the current scope is cancelled."""
    scope, end = current.get(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not (scope is not None and scope.cancelled):
        time.sleep(min(left, 0.1))
