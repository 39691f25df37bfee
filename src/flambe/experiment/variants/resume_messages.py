"""What a resumed run says of the results that it reuses, and of those that it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flambe._hints import option
from flambe.progress import Status, VariantState

MOST_REASONS = 3  # of one stage that are printed


def describe(
    stage: str,
    entries: Sequence[VariantState],
    rerun: Mapping[str, int],
    gone: int,
    folder: Path,
) -> Iterator[str]:
    """Yield messages on what a stage runs, and on results that are stale or not used.

    Parameters
    ----------
    stage, entries
        The stage, and its variants.
    rerun
        Why variants with an earlier result are run again → how many.
    gone
        How many results are no part of the stage any more.
    folder
        Where these are.
    """
    for changes, count in rerun.items():
        yield (
            f"{stage}: {_variants_are(count)} run again: {changes}; "
            f"the earlier results are kept ({option('stale', 'reuse')} would use them)"
        )
    reasons = Counter(
        entry.reason
        for entry in entries
        if entry.status is Status.WAITING and entry.reason and entry.reason not in rerun
    )
    frequent = reasons.most_common(MOST_REASONS)
    for reason, count in frequent:
        yield f"{stage}: {_variants_are(count)} run: {reason}"
    if others := sum(reasons.values()) - sum(count for _, count in frequent):
        yield f"{stage}: {_variants_are(others)} run for other reasons"
    if gone:
        yield (
            f"{stage}: the configuration has changed; {gone} earlier results don't belong "
            f"to it, and are left in {folder}"
        )
    stale = Counter(entry.stale for entry in entries if entry.stale)
    for changes, count in stale.items():
        yield f"{stage}: {_variants_are(count)} stale, and used all the same: {changes}"


def describe_unrecorded(count: int) -> str:
    """Return a message on results whose code and data were not recorded, or nothing."""
    if not count:
        return ""
    return (
        f"{count} results are from a version of flambe that recorded neither code "
        "nor data: whether these have changed since is not known "
        f"({option('force')} runs all again)"
    )


def _variants_are(count: int) -> str:
    return f"{count} variant is" if count == 1 else f"{count} variants are"
