"""Sees that Ray ends on the orchestrator before its core ends the driver of the run for it.

Without a store of its own, Ray's head cannot be started again under a run: what it knew is gone.
What is left of Ray in the driver then ends the process, with a stack of C++, some seconds later.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable

PERIOD = 0.2  # seconds between two looks
CONNECT_SECONDS = 2.0
LOOKS = 2  # in a row that find nobody there
# How long a run may take to note how it ended, in seconds.
ENDING_SECONDS = 120.0
REASON = "Ray on the orchestrator ended, or was started again"


class HeadWatch:
    """Watches the head of Ray, on the same host as the driver.

    Parameters
    ----------
    address
        Of the head: ``host:port``.
    halt
        Ends the run for a reason.
    """

    def __init__(self, address: str, halt: Callable[[str], None]) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.halt = halt
        #: Whether the head is gone: no call to Ray comes back.
        self.gone = False
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="flambe-head", daemon=True).start()

    def close(self) -> None:
        """End it; where the head is gone, this process leaves Ray's core behind at its end."""
        self._over.set()
        if self.gone:
            atexit.register(_leave)  # what is registered last is called first

    def answers(self) -> bool:
        """Whether somebody listens there; a host that is too busy to answer counts as well."""
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
            if missed == LOOKS:
                self.gone = True
                self.halt(REASON)
                # What waits in Ray's core may never return.
                if not self._over.wait(ENDING_SECONDS):
                    _leave()
                return


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(1)
