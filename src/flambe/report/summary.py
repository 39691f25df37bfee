"""Summaries of a run for pages and the API: the run, its stages, their variants."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterable

from flambe.progress import (
    NOT_FINITE,
    StageState,
    Status,
    VariantState,
    is_number,
    ranked,
)
from flambe.report.files import printable
from flambe.report.payloads import (
    FailureSummary,
    Points,
    RowFields,
    RunFacts,
    RunSummary,
    StageSummary,
    VariantSummary,
)
from flambe.report.store import CHANGING, Row, Store, not_finite

BEST = 5  # variants of each stage on the overview
FAILURES = 30  # failures on the overview
LONGEST = 1_000  # characters of an error on the overview
POINTS = 60_000  # points of all curves that a page starts with
FEWEST = 20  # points that a curve keeps at least


def run_summary(store: Store) -> RunSummary:
    """Return the run and its stages, its best variant and its failures."""
    cache = store.summaries()
    if cache.run is None:
        cache.run = _run_summary(store)
    return cache.run


def _run_summary(store: Store) -> RunSummary:
    run = store.run
    if run is None:
        name = printable(store.folder.root.name.removeprefix("output__"))
        return {"name": name, "status": "empty", "lost": 0, "stages": [], "failures": []}
    stages = [_shared_summary(store, stage) for stage in run.stages]
    running = [stage for stage in stages if stage["runs"]]
    failed = [row.variant for row in store.rows.values() if row.variant.error]
    # Variants that failed for good come first.
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
        "stored_bytes": sum(stage["stored_bytes"] for stage in stages),
        "idle": _is_idle(store),
        "lost": sum(stage["lost"] for stage in running),
        "failed": len(failed),
        "failures": [_failure(variant) for variant in failed[:FAILURES]],
    }


def _is_idle(store: Store) -> bool:
    """Whether all results of a run are from an earlier one: there was nothing to run."""
    variants = [row.variant for row in store.rows.values()]
    return any(v.status is Status.REUSED for v in variants) and not any(
        v.attempts for v in variants
    )


def stage_summary(store: Store, name: str) -> StageSummary | None:
    """Return one stage of the run."""
    stages = store.run.stages if store.run else []
    return next((_shared_summary(store, stage) for stage in stages if stage.name == name), None)


def run_facts(store: Store) -> RunFacts:
    """Return what does not change during a run."""
    run = store.run
    if run is None:
        return {}
    return {
        "command": shlex.join(run.command),
        "version": run.version,
        "host": run.host,
        "user": run.hosts.get(run.host, {}).get("user", ""),
        "seed": run.seed,
        "storage": run.storage,
        "folder": printable(str(store.folder.root)),
    }


def host_summaries(store: Store) -> list[dict[str, object]]:
    """Return the hosts of the run, and the last measured load of each."""
    cache = store.summaries()
    if cache.hosts is None:
        cache.hosts = _host_summaries(store)
    return cache.hosts


def _host_summaries(store: Store) -> list[dict[str, object]]:
    facts = dict(store.run.hosts) if store.run else {}
    running: dict[str, int] = {}
    for row in store.rows.values():
        if row.variant.status is Status.RUNNING and row.variant.host:
            running[row.variant.host] = running.get(row.variant.host, 0) + 1
    names = dict.fromkeys([*facts, *store.hosts, *running])
    return [
        {
            **facts.get(name, {}),
            **store.hosts.get(name, {}),
            "host": name,
            "running": running.get(name, 0),
        }
        for name in names
    ]


def _shared_summary(store: Store, stage: StageState) -> StageSummary:
    cache = store.summaries()
    if stage.name not in cache.stages:
        cache.stages[stage.name] = _stage_summary(store, stage)
    return cache.stages[stage.name]


def _stage_summary(store: Store, stage: StageState) -> StageSummary:
    variants = [row.variant for row in store.of(stage.name)]
    counts = dict.fromkeys(Status, 0)
    for variant in variants:
        counts[variant.status] += 1
    dead = store.status == Status.INTERRUPTED.value
    status = stage.status
    if dead and status is Status.RUNNING:
        status = Status.INTERRUPTED
    done = sum(count for each, count in counts.items() if each.done)
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
        "counts": {each.value: count for each, count in counts.items() if count},
        "started": stage.started,
        "ended": stage.ended,
        "until": _until(stage, variants) if status is Status.RUNNING else None,
        "stored_bytes": sum(variant.stored_bytes for variant in variants),
        "best": [_variant_summary(variant) for variant in _ranked(variants)[:BEST]],
    }


def _until(stage: StageState, variants: list[VariantState]) -> int | None:
    """Return when a stage may be done, at its pace so far."""
    durations = [v.ended - v.started for v in variants if v.status.done and v.ended and v.started]
    if not durations or not stage.started:
        return None
    elapsed = max(time.time() - stage.started, 0.1)
    running = [v for v in variants if v.status is Status.RUNNING and v.started]
    under_way = [time.time() - (v.started or 0.0) for v in running]
    side_by_side = max(1.0, (sum(durations) + sum(under_way)) / elapsed)
    mean = sum(durations) / len(durations)
    waiting = max(stage.total, len(variants)) - len(durations) - len(running)
    waiting -= sum(v.status in (Status.FAILED, Status.MASKED) for v in variants)
    remaining = max(0, waiting) * mean + sum(max(0.0, mean - spent) for spent in under_way)
    end = time.time() + remaining / side_by_side
    return round(end) if math.isfinite(end) else None  # times in a broken file may be anything


def _ranked(variants: Iterable[VariantState]) -> list[VariantState]:
    # Nothing is built on a variant that failed, whatever its metric was.
    measured = [v for v in variants if is_number(v.best) and v.status is not Status.FAILED]
    return ranked(measured, lambda variant: variant.best)


def _variant_summary(variant: VariantState) -> VariantSummary:
    return {
        "metric": _finite_or_none(variant.metric),
        "best": _finite_or_none(variant.best),
        # Beside a figure that is null stands whether it is a NaN.
        "not_finite": not_finite(variant),
        "id": variant.id,
        "stage": variant.stage,
        "choices": variant.choices,
        "status": variant.status.value,
        "kept": variant.kept,
        "stale": variant.stale,
    }


def _finite_or_none(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None


def _winner(stages: list[StageSummary]) -> VariantSummary | None:
    """Return the best variant of the last stage that has figures."""
    for stage in reversed(stages):
        if stage["runs"] and stage["best"]:
            return stage["best"][0]
    return None


def _failure(variant: VariantState) -> FailureSummary:
    return {
        **_variant_summary(variant),
        "error": variant.error[:LONGEST],
        "host": variant.host,
        "attempts": variant.attempts,
        "ended": variant.ended,
    }


# -- variants -----------------------------------------------------------------------------------


def whole_row(row: Row) -> RowFields:
    """Return every field of a variant that a table shows."""
    variant = row.variant
    static: RowFields = {
        "id": variant.id,
        "name": variant.name,
        "choices": variant.choices,
        "reason": variant.reason,
    }
    if variant.group:  # it is run under several seeds
        static["group"] = variant.group
    return {**static, **{name: _value(variant, name) for name in CHANGING}}


def changed_row(row: Row, since: int) -> RowFields | None:
    """Return the fields of a variant that are newer than a revision, or None if there are none."""
    if row.revision <= since:
        return None
    changed = {
        name: _value(row.variant, name)
        for name, revision in row.field_revisions.items()
        if revision > since
    }
    if not changed:
        return None
    is_new = row.first_revision > since
    result: RowFields = whole_row(row) if is_new else {"id": row.variant.id, **changed}
    if row.curve.rewound > since:
        result["rewound"] = True
    if points := row.curve.since(since):
        result["points"] = points
    return result


def _value(variant: VariantState, name: str) -> object:
    if name == NOT_FINITE:
        return not_finite(variant)
    if name == "error" and variant.error:
        return variant.error.splitlines()[0][:300]
    value: object = getattr(variant, name)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.value if isinstance(value, Status) else value


def measured(store: Store, stage: str) -> tuple[list[dict[str, object]], list[float]]:
    """Return the hyper-parameters and the best metric of the variants that have a finite one."""
    results = [(row.variant.choices, row.variant.best) for row in store.of(stage)]
    finite = [(c, float(best)) for c, best in results if best is not None and math.isfinite(best)]
    return [choices for choices, _ in finite], [best for _, best in finite]


def curves(store: Store, stage: str) -> dict[str, Points]:
    """Return the curves of a stage: id → steps and values, thinned if there are very many."""
    rows = list(store.of(stage))
    most = max(FEWEST, POINTS // max(1, len(rows)))
    return {row.variant.id: thin(*_points(row), most=most) for row in rows if len(row.curve.steps)}


def _points(row: Row) -> Points:
    points = row.curve.since(-1)
    return [step for step, _ in points], [value for _, value in points]


def thin(steps: list[int], values: list[float | None], *, most: int) -> Points:
    """Return at most ``most`` points of a curve: in each stretch the lowest and the highest."""
    if len(steps) <= most:
        return steps, values
    kept = {0, len(steps) - 1}
    stretches = max(1, most // 2 - 1)
    for number in range(stretches):
        first = number * len(steps) // stretches
        last = (number + 1) * len(steps) // stretches
        points = [
            (value, index) for index in range(first, last) if (value := values[index]) is not None
        ]
        if points:
            # Of equal values the first one, of either kind.
            kept |= {min(points)[1], max(points, key=lambda point: point[0])[1]}
    indices = sorted(kept)
    return [steps[index] for index in indices], [values[index] for index in indices]
