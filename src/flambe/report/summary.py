"""What pages show of a run, as JSON: the run, its stages, their variants, and what is new."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from flambe.progress import (
    NOT_FINITE,
    StageState,
    Status,
    VariantState,
    is_number,
    ranked,
)
from flambe.report.files import printable
from flambe.report.store import CHANGING, Row, Store, not_finite

BEST = 5  # how many of the best variants the overview shows of each stage
FAILURES = 30  # how many failures the overview shows
LONGEST = 1_000  # characters of an error that the overview shows
POINTS = 60_000  # how many points of curves a page begins with
FEWEST = 20  # how many of them a curve keeps at least


def run_summary(store: Store) -> dict[str, Any]:
    """Return the run and its stages, what is best and what failed."""
    return dict(store.summary("run", _run_summary))


def _run_summary(store: Store) -> dict[str, Any]:
    run = store.run
    if run is None:
        name = printable(store.folder.root.name.removeprefix("output__"))
        return {"name": name, "status": "empty", "lost": 0, "stages": [], "failures": []}
    stages = [_shared_summary(store, stage) for stage in run.stages]
    running = [stage for stage in stages if stage["runs"]]
    failed = [row.variant for row in store.rows.values() if row.variant.error]
    # What failed for good comes first.
    failed.sort(key=lambda variant: variant.status is not Status.FAILED)
    return {
        "name": run.name,
        "status": store.status,
        "started": run.started,
        "ended": run.ended or (run.updated if store.status == "interrupted" else None),
        "error": run.error,
        "done": sum(stage["done"] for stage in running),
        "planned": sum(stage["planned"] for stage in running),
        "stages": stages,
        "best": _winner(stages),
        "idle": _is_idle(store),
        "lost": sum(stage["lost"] for stage in running),
        "failed": len(failed),
        "failures": [_failure(variant) for variant in failed[:FAILURES]],
    }


def _is_idle(store: Store) -> bool:
    """Whether all that a run has is of an earlier one: there was nothing to run."""
    variants = [row.variant for row in store.rows.values()]
    return any(v.status is Status.REUSED for v in variants) and not any(
        v.attempts for v in variants
    )


def stage_summary(store: Store, name: str) -> dict[str, Any] | None:
    """Return one stage of the run."""
    stages = store.run.stages if store.run else []
    return next((_shared_summary(store, stage) for stage in stages if stage.name == name), None)


def run_facts(store: Store) -> dict[str, Any]:
    """Return what does not change while a run goes on."""
    run = store.run
    if run is None:
        return {}
    return {
        "command": " ".join(run.command),
        "version": run.version,
        "host": run.host,
        "user": run.hosts.get(run.host, {}).get("user", ""),
        "seed": run.seed,
        "storage": run.storage,
        "folder": printable(str(store.folder.root)),
    }


def hosts(store: Store) -> list[dict[str, Any]]:
    """Return the hosts of the run, and how busy each was when it was last heard of."""
    return store.summary("hosts", _hosts)


def _hosts(store: Store) -> list[dict[str, Any]]:
    known = dict(store.run.hosts) if store.run else {}
    running: dict[str, int] = {}
    for row in store.rows.values():
        if row.variant.status is Status.RUNNING and row.variant.host:
            running[row.variant.host] = running.get(row.variant.host, 0) + 1
    names = dict.fromkeys([*known, *store.hosts, *running])
    return [
        {
            **known.get(name, {}),
            **store.hosts.get(name, {}),
            "host": name,
            "running": running.get(name, 0),
        }
        for name in names
    ]


def _shared_summary(store: Store, stage: StageState) -> dict[str, Any]:
    return store.summary(("stage", stage.name), _stage_summary, stage)


def _stage_summary(store: Store, stage: StageState) -> dict[str, Any]:
    variants = [row.variant for row in store.of(stage.name)]
    counts = dict.fromkeys(Status, 0)
    for variant in variants:
        counts[variant.status] += 1
    dead = store.status == Status.INTERRUPTED.value
    status = stage.status
    if dead and status is Status.RUNNING:
        status = Status.INTERRUPTED
    done = sum(count for one, count in counts.items() if one.done)
    return {
        "name": stage.name,
        "tag": stage.tag,
        "links": stage.links,
        "runs": stage.runs,
        "status": status.value,
        "reduce": stage.reduce,
        "done": done,
        "planned": max(0, max(stage.total, len(variants)) - counts[Status.MASKED]),
        "lost": counts[Status.FAILED],
        "counts": {one.value: count for one, count in counts.items() if count},
        "started": stage.started,
        "ended": stage.ended,
        "until": _until(stage, variants) if status is Status.RUNNING else None,
        "best": [_brief(variant) for variant in _ranked(variants)[:BEST]],
    }


def _until(stage: StageState, variants: list[VariantState]) -> int | None:
    """Return when a stage may be done: what is left, at the pace of what is done."""
    took = [v.ended - v.started for v in variants if v.status.done and v.ended and v.started]
    if not took or not stage.started:
        return None
    elapsed = max(time.time() - stage.started, 0.1)
    running = [v for v in variants if v.status is Status.RUNNING and v.started]
    under_way = [time.time() - (v.started or 0.0) for v in running]
    side_by_side = max(1.0, (sum(took) + sum(under_way)) / elapsed)
    mean = sum(took) / len(took)
    waiting = max(stage.total, len(variants)) - len(took) - len(running)
    waiting -= sum(v.status in (Status.FAILED, Status.MASKED) for v in variants)
    left = max(0, waiting) * mean + sum(max(0.0, mean - spent) for spent in under_way)
    end = time.time() + left / side_by_side
    return round(end) if math.isfinite(end) else None  # times in a broken file may be anything


def _ranked(variants: Iterable[VariantState]) -> list[VariantState]:
    # What failed is not built upon, whatever it reached before.
    measured = [v for v in variants if is_number(v.best) and v.status is not Status.FAILED]
    return ranked(measured, lambda variant: variant.best)


def _brief(variant: VariantState) -> dict[str, Any]:
    return {
        **_figures(variant),
        "id": variant.id,
        "stage": variant.stage,
        "choices": variant.choices,
        "status": variant.status.value,
        "kept": variant.kept,
        "stale": variant.stale,
    }


def _figures(variant: VariantState) -> dict[str, Any]:
    """Return the figures of a variant; beside one that is null stands whether it is a NaN."""
    return {name: _value(variant, name) for name in ("metric", "best", NOT_FINITE)}


def _winner(stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the best variant of the last stage that has figures."""
    for stage in reversed(stages):
        if stage["runs"] and stage["best"]:
            best: dict[str, Any] = stage["best"][0]
            return best
    return None


def _failure(variant: VariantState) -> dict[str, Any]:
    told = {"error": variant.error[:LONGEST], "host": variant.host, "attempts": variant.attempts}
    return {**_brief(variant), **told, "ended": variant.ended}


# -- variants -----------------------------------------------------------------------------------


def whole_row(row: Row) -> dict[str, Any]:
    """Return all that a table shows of a variant."""
    variant = row.variant
    static = {
        "id": variant.id,
        "name": variant.name,
        "choices": variant.choices,
        "reason": variant.reason,
    }
    return {**static, **{name: _value(variant, name) for name in CHANGING}}


def changed_row(row: Row, since: int) -> dict[str, Any] | None:
    """Return what is new of a variant since a look, or None if there is nothing."""
    if row.look <= since:
        return None
    changed = {name: _value(row.variant, name) for name, look in row.looks.items() if look > since}
    if not changed:
        return None
    result = whole_row(row) if row.born > since else {"id": row.variant.id, **changed}
    if row.curve.rewound > since:
        result["rewound"] = True
    if points := row.curve.since(since):
        result["points"] = points
    return result


def _value(variant: VariantState, name: str) -> Any:
    if name == NOT_FINITE:
        return not_finite(variant)
    value = getattr(variant, name)
    if name == "error" and value:
        return value.splitlines()[0][:300]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.value if isinstance(value, Status) else value


def measured(store: Store, stage: str) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the hyper-parameters and the best metric of the variants that have a finite one."""
    found = [(row.variant.choices, row.variant.best) for row in store.of(stage)]
    finite = [(c, float(best)) for c, best in found if best is not None and math.isfinite(best)]
    return [choices for choices, _ in finite], [best for _, best in finite]


def curves(store: Store, stage: str) -> dict[str, list[list[Any]]]:
    """Return the curves of a stage: id → steps and values, thinned where there are very many."""
    rows = list(store.of(stage))
    most = max(FEWEST, POINTS // max(1, len(rows)))
    return {row.variant.id: thin(*_points(row), most=most) for row in rows if len(row.curve.steps)}


def _points(row: Row) -> tuple[list[int], list[float | None]]:
    points = row.curve.since(-1)
    return [step for step, _ in points], [value for _, value in points]


def thin(steps: list[int], values: list[Any], *, most: int) -> list[list[Any]]:
    """Return at most so many points of a curve: in each stretch the lowest and the highest."""
    if len(steps) <= most:
        return [steps, values]
    kept = {0, len(steps) - 1}
    stretches = max(1, most // 2 - 1)
    for number in range(stretches):
        first = number * len(steps) // stretches
        last = (number + 1) * len(steps) // stretches
        known = [index for index in range(first, last) if values[index] is not None]
        if known:
            kept |= {min(known, key=values.__getitem__), max(known, key=values.__getitem__)}
    chosen = sorted(kept)
    return [[steps[index] for index in chosen], [values[index] for index in chosen]]
