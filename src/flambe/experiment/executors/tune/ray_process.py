"""What keeps Ray from taking over the terminal and the signals of a run."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def sigterm_is_ours() -> Iterator[None]:
    """Give SIGTERM its handler back: Ray's own ends the process at once, with a core's stack."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def log_raylet() -> None:
    """Keep off the terminal what Ray's own processes have to say: it goes to the log.

    Of a worker that died, flambe tells which variant that was.
    """
    from ray._private import worker

    def take(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        for line in data.get("lines", ()):
            _log.debug("Ray: %s", line)

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = take


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
