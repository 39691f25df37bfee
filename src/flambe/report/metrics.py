"""The figures that components log: ``metrics.jsonl`` of the variants."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator

from flambe.progress import METRICS, bounded_lines, finite, objects
from flambe.report.files import RunPath
from flambe.report.payloads import Points
from flambe.report.store import Store
from flambe.report.summary import FEWEST, POINTS, curves, thin

TAGS_OF = 20  # variants of a stage that are searched for names of figures
MOST = 2_000  # points of a figure on the page of its variant
MOST_TAGS = 1_000  # figures of a variant that are read
MOST_LINES = 2_000_000  # of the file of a variant
LINES_AT_ONCE = 500  # that are read between two checks of the deadline
READ_SECONDS = 20.0  # for which one request may read


def figures(path: RunPath, until: float | None = None) -> dict[str, Points]:
    """Return the figures of a variant: name → steps and values, in order.

    Of a step that was repeated after a failure, the last figure counts. Of a very long file, only
    the first lines count: :data:`MOST_LINES`, and as many as are read until a deadline
    (:func:`time.monotonic`).
    """
    values: dict[str, dict[int, float | None]] = {}
    for line in objects(_lines(path, until)):
        tag, step, value = line.get("tag"), line.get("step"), line.get("value")
        if isinstance(tag, str) and _is_figure(value):
            if tag not in values and len(values) >= MOST_TAGS:
                continue
            points = values.setdefault(tag, {})
            if not (isinstance(step, int) and -(2**63) <= step < 2**63):
                step = len(points) + 1
            points[step] = _finite_or_none(value)
    return {
        tag: (sorted(points), [points[step] for step in sorted(points)])
        for tag, points in values.items()
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


def _is_figure(value: object) -> bool:
    """Whether a logged value is a number; JSON has no NaN or infinity, which are text."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or value in ("nan", "inf", "-inf")


def _finite_or_none(value: object) -> float | None:
    """Return a figure, or None if it is not finite, or too large for a float."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return float(value) if isinstance(value, int) and finite(value) is not None else None


def thinned(path: RunPath) -> str:
    """Return the figures of a variant as JSON, thinned if they are very long."""
    points_by_tag = figures(path, time.monotonic() + READ_SECONDS)
    thinner = {tag: thin(*points, most=MOST) for tag, points in points_by_tag.items()}
    return _json(figures=thinner)


def stage_curves(store: Store, root: RunPath, stage: str, tag: str) -> str:
    """Return a figure of all variants of a stage as JSON, or the metric.

    ``curves``: id → steps and values; ``tags``: the names of all figures;
    ``missing``: the number of variants whose figures could not be read in time.
    """
    until = time.monotonic() + READ_SECONDS
    names = store.read(_names, stage)
    tags: dict[str, None] = {}
    for name in list(names.values())[:TAGS_OF]:
        tags.update(dict.fromkeys(_figures_of(root, name, until)))
    if not tag:
        return _json(curves=store.read(curves, stage), tags=list(tags), missing=0)
    most = max(FEWEST, POINTS // max(1, len(names)))
    thinner, missing = {}, len(names)
    for identity, name in names.items():
        if time.monotonic() > until:
            break
        missing -= 1
        if points := _figures_of(root, name, until).get(tag):
            thinner[identity] = thin(*points, most=most)
    return _json(curves=thinner, tags=list(tags), missing=missing)


def _names(store: Store, stage: str) -> dict[str, str]:
    """Return the figure files of the variants of a stage that have started: id → name."""
    return {
        row.variant.id: f"{stage}/{row.variant.name}/{METRICS}"
        for row in store.of(stage)
        if row.variant.attempts or row.curve.steps
    }


def _figures_of(root: RunPath, name: str, until: float) -> dict[str, Points]:
    path = root.below(name)
    return figures(path, until) if path else {}


def _json(**members: object) -> str:
    """Return an object as JSON, in pieces: a single call of the encoder would block all threads."""
    parts = []
    for name, value in members.items():
        if isinstance(value, dict):
            inner = ",".join(f"{_text(key)}:{_text(child)}" for key, child in value.items())
            parts.append(f"{_text(name)}:{{{inner}}}")
        else:
            parts.append(f"{_text(name)}:{_text(value)}")
    return f"{{{','.join(parts)}}}"


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
