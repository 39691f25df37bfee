"""What keeps Ray from taking over the terminal and the signals of a run."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def sigterm_is_ours() -> Iterator[None]:
    """Give SIGTERM its handler back: Ray's own ends the process at once, with a core's stack."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Keep Ray's greeting and its farewell from the terminal."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
