"""From data to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.sampler.sampler import BaseSampler

__all__ = [
    "BaseSampler",
]

# Loaded when they are used, so that what needs no torch does not import it.
__getattr__ = lazy_exports(
    __name__,
    {
        "BaseSampler": "sampler",
    },
)
