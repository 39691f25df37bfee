"""Passes the output of components to the run while stages run: one thread for all of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from ray.exceptions import GetTimeoutError

from flambe.experiment.executors.base import VariantListener
from flambe.experiment.executors.tune.channel import LINE_PERIOD
from flambe.experiment.executors.tune.collector import CollectorStatus

STOP_SECONDS = 30.0  # that the thread may take to end


class LiveOutput:
    """Polls the collector while at least one stage runs.

    Parameters
    ----------
    poll
        Asks the collector what has happened.
    on_status
        Called with each answer.
    halt
        Ends the run, because of an error of the disk.
    is_reachable
        Whether calls to Ray return.
    """

    def __init__(
        self,
        poll: Callable[[], CollectorStatus],
        on_status: Callable[[CollectorStatus], None],
        halt: Callable[[OSError], None],
        is_reachable: Callable[[], bool],
    ) -> None:
        self._poll = poll
        self._on_status = on_status
        self._halt = halt
        self._is_reachable = is_reachable
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        #: How many stages run, and the listener of the latest: lines name their variants.
        self._stages = 0
        self._listener: VariantListener | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def passed_to(self, listener: VariantListener) -> Iterator[None]:
        """Pass the output on while a stage runs; all of it, when the stage is over."""
        with self._lock:
            self._stages += 1
            self._listener = listener
            if self._thread is None:
                self._over = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._over,), name="flambe-lines", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            if self._is_reachable():
                self._pass_lines()
            with self._lock:
                self._stages -= 1
                thread = None if self._stages else self._thread
                if thread is not None:
                    self._thread = None
                    self._over.set()
            if thread is not None and self._is_reachable():
                thread.join(STOP_SECONDS)

    def _run(self, over: threading.Event) -> None:
        while not over.wait(LINE_PERIOD):
            if not self._pass_lines():
                return

    def _pass_lines(self) -> bool:
        """Poll once; return whether there is any use in doing so again."""
        with self._polling:
            try:
                status = self._poll()
                self._on_status(status)
            except GetTimeoutError:
                return True
            except Exception:  # Ray is shutting down
                return False
            try:
                if self._listener is not None:
                    self._listener.on_lines(status.lines)
            except OSError as error:
                self._halt(error)
            return True
