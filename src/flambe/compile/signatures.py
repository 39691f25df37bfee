"""The signatures of what tags name: which keywords there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache


def signature(target: Callable[..., object]) -> inspect.Signature | None:
    """Return the signature that a tag's keywords are checked against, or None if unknown."""
    return _signature(target)


@cache
def _signature(target: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def has(signature: inspect.Signature, kind: str) -> bool:
    """Return whether there is a parameter of a kind: ``VAR_POSITIONAL``, ``VAR_KEYWORD``."""
    return any(p.kind.name == kind for p in signature.parameters.values())


def takes(target: Callable[..., object], name: str) -> bool:
    """Return whether a tag has a keyword, as far as its signature is known."""
    own = signature(target)
    return own is None or name in own.parameters or has(own, "VAR_KEYWORD")
