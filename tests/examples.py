"""How many examples a property is tested with: all by ``make test``, fewer by ``make check``."""

from __future__ import annotations

from hypothesis import settings

FEWER = 30  # of the 100 that Hypothesis tries where a test does not say how many


def examples(count: int) -> int:
    """Return as much of a number of examples as the profile has of those that are the default."""
    return max(1, count * settings().max_examples // 100)
