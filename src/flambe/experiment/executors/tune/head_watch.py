"""Notices that the head of Ray ended, before Ray's core ends the driver of the run for it.

Without an external store, the head cannot be restarted under a run: its state is gone. Some seconds
later, what is left of Ray in the driver ends the process with a C++ stack. Shown by
``tests/experiment/test_cluster_life.py``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable

PERIOD = 0.2  # seconds between two checks
CONNECT_SECONDS = 2.0
CHECKS = 2  # in a row that are refused
# How long a run may take to record how it ended, in seconds.
ENDING_SECONDS = 120.0
REASON = "Ray on the orchestrator ended, or was started again"


class HeadWatch:
    """Watches the head of Ray, on the same host as the driver.

    Parameters
    ----------
    address
        Of the head: ``host:port``.
    halt
        Ends the run, for a reason.
    """

    def __init__(self, address: str, halt: Callable[[str], None]) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.halt = halt
        #: Whether the head is gone: no call to Ray comes back.
        self.gone = False
        self._over = threading.Event()

    def start(self) -> None:
        """Start watching."""
        threading.Thread(target=self._watch, name="flambe-head", daemon=True).start()

    def close(self) -> None:
        """Stop; if the head is gone, this process exits without the handlers of Ray's core."""
        self._over.set()
        if self.gone:
            atexit.register(_exit_now)  # what is registered last is called first

    def answers(self) -> bool:
        """Whether the head accepts connections, or its host is just too busy to answer."""
        try:
            socket.create_connection(self.address, CONNECT_SECONDS).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True

    def _watch(self) -> None:
        missed = 0
        while not self._over.wait(PERIOD):
            missed = 0 if self.answers() else missed + 1
            if missed == CHECKS:
                self.gone = True
                self.halt(REASON)
                # A call that waits in Ray's core may never return.
                if not self._over.wait(ENDING_SECONDS):
                    _exit_now()
                return


def _exit_now() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)
