"""The signatures of what tags name: which keywords there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any


def signature(target: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature that a tag's keywords are checked against, or None if unknown."""
    return _signature(target)


@cache
def _signature(target: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def has(known: inspect.Signature, kind: str) -> bool:
    """Return whether there is a parameter of a kind: ``VAR_POSITIONAL``, ``VAR_KEYWORD``."""
    return any(p.kind.name == kind for p in known.parameters.values())


def takes(target: Callable[..., Any], name: str) -> bool:
    """Return whether a tag has a keyword, as far as its signature is known."""
    known = signature(target)
    return known is None or name in known.parameters or has(known, "VAR_KEYWORD")
