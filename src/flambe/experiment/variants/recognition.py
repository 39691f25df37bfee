"""Stages that were renamed, and variants that take over the identity of an earlier result."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.lineage import EarlierResult, EarlierResults
from flambe.experiment.variants.record import LineageRecord
from flambe.progress import RunFolder, VariantState


def read_record(folder: RunFolder) -> LineageRecord | None:
    """Return what the last run in a folder wrote down; None if it was of an earlier version."""
    try:
        return LineageRecord.parse(folder.lineage.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def adopted(variant: Variant, result: EarlierResult) -> Variant:
    """Return a variant with the identity of an earlier result, and what that was made from.

    What builds on a stale result is none of those that build on a fresh one.
    """
    entry = result.entry
    fresh = not result.changes and not result.unrecorded
    return dataclasses.replace(
        variant,
        id=entry.id,
        code=entry.code,
        data=entry.data,
        packages=(entry.packages or variant.packages) if fresh else entry.packages,
    )


def suggested(entry: VariantState, bases: Sequence[Variant], expander: Expander) -> Variant | None:
    """Return the variant of an earlier result of a search, as a base of today suggests it."""
    for base in bases:
        # The paths of values start with the name that the stage had.
        values = {base.stage + path[len(entry.stage) :]: v for path, v in entry.values.items()}
        variant = expander.suggest(base, values, entry.repetition)
        if variant.id == entry.id or variant.config_id == (entry.config_id or entry.id):
            return variant
    return None


def recall(expander: Expander, earlier: EarlierResults, before: LineageRecord | None) -> None:
    """Let an expander name stages as the last run did, and draw as it did."""
    if before is None:
        # The values of versions that wrote no record were drawn with all resources.
        expander.all_resources = bool(earlier.entries)
        return
    expander.all_resources = before.all_resources
    for stage in expander.pipeline:
        record = before.stages.get(stage)
        if record is not None and record.origin != stage:
            expander.rename(stage, record.origin)
    _separate(expander)


def recognize(
    expander: Expander,
    earlier: EarlierResults,
    before: LineageRecord | None,
    stage: str,
    variants: Mapping[str, Sequence[Variant]],
) -> bool:
    """Find out whether a stage is one of an earlier run under another name.

    It is the one that is no longer in the file whose results it has most of.

    Returns
    -------
    bool
        Whether it is taken for another one than before.
    """
    if stage in expander.origins or not earlier.entries:
        return False
    stages = {entry.stage for entry in earlier.entries.values()}
    vanished = sorted(stages - set(expander.pipeline))
    if stage in {entry.stage for entry in earlier.last.values()} or not vanished:
        return False
    ids = {entry.id for entry in earlier.entries.values()}
    bases = {entry.base for entry in earlier.entries.values()}
    configs = {entry.config_id for entry in earlier.entries.values()}
    records = before.stages if before is not None else {}
    origins = [records[name].origin if name in records else name for name in vanished]
    best, best_score = stage, 0
    taken = {expander.origin(name) for name in expander.pipeline if name != stage}
    for origin in dict.fromkeys([stage, *origins]):
        if origin in taken:
            continue
        expander.rename(stage, origin)
        score = sum(
            variant.id in ids or variant.id in bases or variant.config_id in configs
            or expander.former_id(variant) in ids
            for variant in expander.expand(stage, variants)
        )  # fmt: skip
        if score > best_score:
            best, best_score = origin, score
    if best == stage:
        expander.forget_name(stage)
        return False
    expander.rename(stage, best)
    return True


def _separate(expander: Expander) -> None:
    """Give a stage another origin than one that had its name before, and is in the file too."""
    taken = set(expander.origins.values())
    for stage in expander.pipeline:
        if stage not in expander.origins and stage in taken:
            names = (f"{stage}~{number}" for number in itertools.count(2))
            expander.rename(stage, next(name for name in names if name not in taken))
            taken.add(expander.origin(stage))
