"""The time of a run: that of the host when its process began, and not moved by who sets the clock.

What is taken from two of these is a duration, though the clock was wrong at first and put right
meanwhile, as on a machine that has just been started.
"""

from __future__ import annotations

import time

# On Linux it counts while a laptop sleeps, too.
_COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BEGIN = time.time() - time.clock_gettime(_COUNTER)


def steady_time() -> float:
    """Return the seconds since the epoch."""
    return _BEGIN + time.clock_gettime(_COUNTER)
