"""The figures that components logged: ``metrics.jsonl`` of the variants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flambe.progress import METRICS, read_lines
from flambe.report.store import Row, Store
from flambe.report.summary import FEWEST, POINTS, thin

TAGS_OF = 20  # in how many variants of a stage names of figures are looked for
MOST = 2_000  # points of a figure on the page of its variant


def figures(path: Path) -> dict[str, tuple[list[int], list[float | None]]]:
    """Return the figures of a variant: name → steps and values, in order.

    Steps that were done again after a failure count as they were done last.
    """
    found: dict[str, dict[int, float | None]] = {}
    for line in read_lines(path):
        tag, step, value = line.get("tag"), line.get("step"), _number(line.get("value"))
        if isinstance(tag, str) and value is not _NOT:
            points = found.setdefault(tag, {})
            points[step if isinstance(step, int) else len(points) + 1] = value
    return {
        tag: (sorted(points), [points[step] for step in sorted(points)])
        for tag, points in found.items()
    }


_NOT: Any = object()


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return _NOT
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    # What JSON has no number for is written as text.
    return None if value in ("nan", "inf", "-inf") else _NOT


def variant_figures(store: Store, row: Row) -> dict[str, list[list[Any]]]:
    """Return the figures of a variant, thinned where they are very long."""
    found = figures(_path(store, row))
    return {tag: thin(steps, values, most=MOST) for tag, (steps, values) in found.items()}


def tags(store: Store, stage: str) -> list[str]:
    """Return the names of the figures of a stage."""
    begun = [row for row in store.of(stage) if row.variant.attempts or row.curve.steps]
    names: dict[str, None] = {}
    for row in begun[:TAGS_OF]:
        names.update(dict.fromkeys(figures(_path(store, row))))
    return list(names)


def stage_figures(store: Store, stage: str, tag: str) -> dict[str, list[list[Any]]]:
    """Return one figure of all variants of a stage: id → steps and values."""
    rows = list(store.of(stage))
    most = max(FEWEST, POINTS // max(1, len(rows)))
    result = {}
    for row in rows:
        if found := figures(_path(store, row)).get(tag):
            result[row.variant.id] = thin(*found, most=most)
    return result


def _path(store: Store, row: Row) -> Path:
    return store.folder.variant(row.variant.stage, row.variant.name) / METRICS
