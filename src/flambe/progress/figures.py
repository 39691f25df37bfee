"""Figures: what ``metric()`` returned; ranked, and written as JSON, the same everywhere.

A figure is a number, and higher is better. An infinity is a number like others: ``inf`` is the
best there is, ``-inf`` the worst. After all numbers comes NaN, a figure that is not defined, and
and last None, where there is no figure.

JSON has no NaN and no infinities. They are written as null, and the entry :data:`NOT_FINITE` beside
them names each: ``{"metric": null, "not_finite": {"metric": "nan"}}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")

NOT_FINITE = "not_finite"
_NAMES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def is_number(figure: object) -> TypeGuard[float]:
    """Whether a figure is a number that can be ranked: neither NaN nor None."""
    if isinstance(figure, float):
        return not math.isnan(figure)
    return isinstance(figure, int)


def rank(figure: float | None) -> tuple[int, float]:
    """Return what to sort figures by: the best first, NaN after all numbers, None last."""
    if is_number(figure):
        return 0, -figure
    return (2 if figure is None else 1), 0.0


def ranked(items: Iterable[T], figure: Callable[[T], float | None]) -> list[T]:
    """Return items by their figures, the best first; equal ones stay in order."""
    return sorted(items, key=lambda item: rank(figure(item)))


def better(first: float | None, second: float | None) -> float | None:
    """Return the better of two figures, the first of equal ones; None unless one is a number."""
    best = first if rank(first) <= rank(second) else second
    return best if is_number(best) else None


def figure_text(figure: float | None, digits: int = 5) -> str:
    """Return a figure as people read it: ``nan`` if it is not defined, nothing if there is none."""
    return "" if figure is None else f"{figure:.{digits}g}"


# -- JSON ---------------------------------------------------------------------------------------


def with_names(values: Mapping[str, object]) -> dict[str, object]:
    """Return an object for JSON, in which what is not finite is null, and named beside it."""
    names = _named(values)
    plain = {str(name): _plain(value) for name, value in values.items()}
    return {**plain, NOT_FINITE: names} if names else plain


def _named(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): name for k, child in value.items() if (name := _named(child))}
    return None


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(child) for k, child in value.items()}
    return value


def named_value(name: str, value: object, line: Mapping[str, object]) -> Any:
    """Return a value of an object that :func:`with_names` made, as it was before."""
    names = line.get(NOT_FINITE)
    return _restored(value, names.get(name)) if isinstance(names, Mapping) else value


def _restored(value: object, name: object) -> object:
    if value is None and isinstance(name, str):
        return _NAMES.get(name)
    if isinstance(value, Mapping) and isinstance(name, Mapping):
        return {key: _restored(child, name.get(key)) for key, child in value.items()}
    return value
