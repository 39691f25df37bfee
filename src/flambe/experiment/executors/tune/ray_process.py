"""What keeps Ray from taking over the terminal and the signals of a run."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def keep_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray's own ends the process at once, with a C++ stack."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def log_raylet() -> None:
    """Send what Ray's own processes print to the log instead of the terminal.

    When a worker dies, flambe reports which variant it ran.
    """
    from ray._private import worker

    def log_lines(
        data: Mapping[str, Sequence[str]], *options: object, **more_options: object
    ) -> None:
        for line in data.get("lines", ()):
            _log.debug("Ray: %s", line)

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = log_lines


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Suppress what Ray prints when it starts and stops."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
