"""The figures that components logged: ``metrics.jsonl`` of the variants."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from typing import Any

from flambe.progress import METRICS, bounded_lines, finite, objects
from flambe.report.files import RunPath
from flambe.report.store import Store
from flambe.report.summary import FEWEST, POINTS, curves, thin

TAGS_OF = 20  # in how many variants of a stage names of figures are looked for
MOST = 2_000  # points of a figure on the page of its variant
MOST_TAGS = 1_000  # figures of a variant that are read
MOST_LINES = 2_000_000  # of the file of a variant
LINES_AT_ONCE = 500  # that are read between two looks at the clock
PATIENCE = 20.0  # seconds that one request may read

Points = tuple[list[int], list[float | None]]


def figures(path: RunPath, until: float | None = None) -> dict[str, Points]:
    """Return the figures of a variant: name → steps and values, in order.

    Steps that were done again after a failure count as they were done last. Of a file without end,
    what is read first counts: :data:`MOST_LINES` lines, and as many as are read until a time
    (:func:`time.monotonic`).
    """
    found: dict[str, dict[int, float | None]] = {}
    for line in objects(_lines(path, until)):
        tag, step, value = line.get("tag"), line.get("step"), _number(line.get("value"))
        if isinstance(tag, str) and value is not _NOT:
            if tag not in found and len(found) >= MOST_TAGS:
                continue
            points = found.setdefault(tag, {})
            if not (isinstance(step, int) and -(2**63) <= step < 2**63):
                step = len(points) + 1
            points[step] = value
    return {
        tag: (sorted(points), [points[step] for step in sorted(points)])
        for tag, points in found.items()
    }


def _lines(path: RunPath, until: float | None) -> Iterator[str]:
    try:
        stream = path.open()
    except OSError:
        return
    with stream:
        lines = itertools.islice(bounded_lines(stream), MOST_LINES)
        for number, line in enumerate(lines, 1):
            yield line.decode("utf-8", "replace")
            if not number % LINES_AT_ONCE and until is not None and time.monotonic() > until:
                return


_NOT: Any = object()


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return _NOT
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return None if finite(value) is None else float(value)
    # What JSON has no number for is written as text.
    return None if value in ("nan", "inf", "-inf") else _NOT


def thinned(path: RunPath) -> str:
    """Return the figures of a variant as JSON, thinned where they are very long."""
    found = figures(path, time.monotonic() + PATIENCE)
    return _json(figures={tag: thin(*points, most=MOST) for tag, points in found.items()})


def stage_curves(store: Store, root: RunPath, stage: str, tag: str) -> str:
    """Return a figure of all variants of a stage as JSON, or the metric.

    ``curves``: id → steps and values; ``tags``: the names of the figures that there are;
    ``missing``: the number of variants whose figures could not be read in time.
    """
    until = time.monotonic() + PATIENCE
    names = store.read(_names, stage)
    tags: dict[str, None] = {}
    for name in list(names.values())[:TAGS_OF]:
        tags.update(dict.fromkeys(_figures_of(root, name, until)))
    if not tag:
        return _json(curves=store.read(curves, stage), tags=list(tags), missing=0)
    most = max(FEWEST, POINTS // max(1, len(names)))
    found, missing = {}, len(names)
    for identity, name in names.items():
        if time.monotonic() > until:
            break
        missing -= 1
        if points := _figures_of(root, name, until).get(tag):
            found[identity] = thin(*points, most=most)
    return _json(curves=found, tags=list(tags), missing=missing)


def _names(store: Store, stage: str) -> dict[str, str]:
    """Return the files of the figures of the variants of a stage that began: id → name."""
    return {
        row.variant.id: f"{stage}/{row.variant.name}/{METRICS}"
        for row in store.of(stage)
        if row.variant.attempts or row.curve.steps
    }


def _figures_of(root: RunPath, name: str, until: float) -> dict[str, Points]:
    path = root.below(name)
    return figures(path, until) if path else {}


def _json(**members: Any) -> str:
    """Return an object as JSON, made piece by piece: one call of the encoder stops all threads."""
    parts = []
    for name, value in members.items():
        if isinstance(value, dict):
            inner = ",".join(f"{_text(key)}:{_text(child)}" for key, child in value.items())
            parts.append(f"{_text(name)}:{{{inner}}}")
        else:
            parts.append(f"{_text(name)}:{_text(value)}")
    return f"{{{','.join(parts)}}}"


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
