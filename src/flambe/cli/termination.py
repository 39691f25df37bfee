"""SIGTERM, and a terminal that is closed: what was begun is undone, as by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt where one of these signals would end the process.

    One that is ignored stays so: ``nohup`` starts what outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {}
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            earlier[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
