"""How long a run on a cluster waits for its factories; users set it by environment variables."""

from __future__ import annotations

import os

#: How long a run waits for a factory when the last one is lost, in seconds.
ALONE, ALONE_SECONDS = "FLAMBE_FACTORIES_DEADLINE", 600.0
#: How long factories may take to join Ray when a run starts, in seconds.
JOIN, JOIN_SECONDS = "FLAMBE_JOIN_DEADLINE", 180.0


def alone_seconds() -> float:
    """Return how long a run waits for a factory when the last one is lost."""
    return float(os.environ.get(ALONE, ALONE_SECONDS))


def join_seconds() -> float:
    """Return how long factories may take to join Ray."""
    return float(os.environ.get(JOIN, JOIN_SECONDS))
