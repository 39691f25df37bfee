"""The language that variants are filtered by: on the Report Site, and by ``flambe show``.

A filter is words, and a variant must match all of them:

============================  =====================================================================
``lr=0.01``, ``lr!=0.01``     with this value, or any other
``best>0.9``, ``lr<=1e-3``    whose figure compares like this
``state=running``             in this state; ``kept`` and ``stale`` are states too
``adam``                      that contain this text anywhere, or whose id starts with it
============================  =====================================================================

``static/js/filter.js`` is the same for browsers: both are tested with the same cases.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from flambe.progress.records import VariantRow

_TERM = re.compile(r"^(.+?)(>=|<=|!=|=|>|<)(.*)$")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?Infinity")
#: Names of the columns of the site, besides those of rows.
ALIASES = {"last": "metric", "step": "steps"}

Test = Callable[[VariantRow], bool]


def row_values(row: VariantRow) -> dict[str, object]:
    """Return the columns of a variant that a filter and an order see: hyper-parameters first."""
    variant = row.variant
    reason = variant.error or (variant.reason if variant.status.value == "masked" else "")
    figures: dict[str, object] = {
        "best": variant.best,
        "metric": variant.metric,
        "steps": variant.step,
        "time": row.seconds,
        "host": variant.host,
        "state": variant.status.value,
        "error": reason,
    }
    # A hyper-parameter may be called like a figure: it comes first, as in the table.
    return {**figures, **variant.choices}


def parse(text: str, names: Sequence[str]) -> Test:
    """Return the test of a filter.

    Parameters
    ----------
    text
        The filter.
    names
        The columns that there are: ``name=value`` of another name is text like any other.
    """
    tests = [_term(word, {*names, *ALIASES}) for word in text.split()]
    return lambda row: all(test(row) for test in tests)


def unknown_columns(text: str, names: Sequence[str]) -> list[str]:
    """Return the names that a filter compares and that no column has."""
    matches = [_TERM.match(word) for word in text.split()]
    return [m[1] for m in matches if m is not None and m[1] not in {*names, *ALIASES}]


def _term(word: str, names: set[str]) -> Test:
    match = _TERM.match(word)
    if match is None or match[1] not in names:
        text = word.lower()
        return lambda row: (
            row.variant.id.startswith(text)
            or any(text in plain_text(value).lower() for value in row_values(row).values())
        )
    name, operator, operand = match.groups()
    if operator in ("=", "!="):
        return lambda row: _is_same(row, name, operand) is (operator == "=")
    figure = _figure(operand)
    return lambda row: _compares(_value(row, name), operator, figure)


def _value(row: VariantRow, name: str) -> object:
    values = row_values(row)
    return values.get(name if name in values else ALIASES.get(name, name))


def _is_same(row: VariantRow, name: str, operand: str) -> bool:
    value = _value(row, name)
    figure = _figure(operand)
    if _is_figure(value) and operand and not math.isnan(figure):
        return value == figure or short_text(value) == operand
    if short_text(value).lower() == operand.lower():
        return True
    if name != "state" or "state" in row.variant.choices:
        return False
    kept = operand == "kept" and row.variant.kept is True
    return kept or (operand == "stale" and bool(row.variant.stale))


def _compares(value: object, operator: str, figure: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    if operator == ">":
        return value > figure
    if operator == "<":
        return value < figure
    return value >= figure if operator == ">=" else value <= figure


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figure(text: str) -> float:
    """Return the number of a text; NaN for one that is none, and 0 for an empty one."""
    if not text:
        return 0.0
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def plain_text(value: object) -> str:
    """Return a value with all of its digits, as browsers write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f")
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def short_text(value: object) -> str:
    """Return a value as a table shows it: figures with five digits."""
    if not isinstance(value, float) or not math.isfinite(value) or value.is_integer():
        return plain_text(value)
    rounded = float(f"{value:.5g}")
    if abs(rounded) >= 1e-4:
        return plain_text(rounded)
    mantissa, _, exponent = f"{Decimal(repr(rounded)).normalize():e}".partition("e")
    return f"{mantissa}e{int(exponent):+d}".replace("e+", "e")
