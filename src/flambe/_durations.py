"""Durations as people write them: a number of seconds, or ``90s``, ``30m``, ``2h``, ``1d``."""

from __future__ import annotations

import math
import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WRITTEN = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smhd])\Z")
HINT = "a number of seconds, or 90s, 30m, 2h, 1d"


def parse_duration(value: object) -> float | None:
    """Return the seconds of a duration, or None if it is not one: it is more than 0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if value > 0 and math.isfinite(value) else None
    match = _WRITTEN.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    seconds = float(match["number"]) * _UNITS[match["unit"]]
    return seconds if seconds > 0 else None
