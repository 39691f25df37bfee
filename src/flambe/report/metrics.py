"""The figures that components logged: ``metrics.jsonl`` of the variants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flambe.progress import METRICS, read_lines
from flambe.report.downloads import inside
from flambe.report.store import Store
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


def thinned(path: Path) -> dict[str, list[list[Any]]]:
    """Return the figures of a variant, thinned where they are very long."""
    return {tag: thin(*found, most=MOST) for tag, found in figures(path).items()}


def folders(store: Store, stage: str) -> dict[str, Path]:
    """Return the files of the figures of the variants of a stage that began: id → path."""
    root = store.folder.root
    return {
        row.variant.id: path
        for row in store.of(stage)
        if (row.variant.attempts or row.curve.steps)
        and (path := inside(root, f"{stage}/{row.variant.name}/{METRICS}"))
    }


def tags(paths: Mapping[str, Path]) -> list[str]:
    """Return the names of the figures of variants."""
    names: dict[str, None] = {}
    for path in list(paths.values())[:TAGS_OF]:
        names.update(dict.fromkeys(figures(path)))
    return list(names)


def stage_figures(paths: Mapping[str, Path], tag: str) -> dict[str, list[list[Any]]]:
    """Return one figure of all variants: id → steps and values."""
    most = max(FEWEST, POINTS // max(1, len(paths)))
    found = {identity: figures(path).get(tag) for identity, path in paths.items()}
    return {identity: thin(*points, most=most) for identity, points in found.items() if points}
