"""Which variants of a stage ``reduce`` keeps, by their figures; and messages on missing ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flambe.compile import Schema
from flambe.errors import RunError
from flambe.progress import StageState, VariantState, group_seeds, is_number, ranked_groups


def keep_best(stage: StageState, done: Sequence[VariantState]) -> list[VariantState]:
    """Return the best variants of a stage, as many as ``reduce`` says.

    Variants without a figure, or whose figure is NaN, are left out. Under several seeds, the mean
    decides, and what is kept is a configuration, under all its seeds.

    Raises
    ------
    RunError
        If there are variants, and none has a number as its figure.
    """
    numbers = [entry for entry in done if is_number(entry.metric)]
    if not numbers and done:
        undefined = sum(entry.metric is not None for entry in done)
        raise RunError(
            f"reduce: no variant of stage {stage.name!r} has a metric to rank by"
            f"{f': of {undefined} it is NaN' if undefined else ''}\n"
            "  its component must return a number from metric()"
        )
    kept = ranked_groups(group_seeds(numbers))[: stage.reduce]
    return [entry for group in kept for entry in group.variants]


def missing_figures(
    stage: StageState,
    done: Sequence[VariantState],
    kept: Sequence[VariantState],
    scheduler: Schema | None,
) -> Iterator[str]:
    """Yield messages on a stage whose variants have no figures to rank by.

    Parameters
    ----------
    stage
        The stage.
    done, kept
        Its variants that are done, and those of them that are kept.
    scheduler
        The blueprint of its scheduler, if it has one.
    """
    groups, kept_groups = len(group_seeds(done)), len(group_seeds(kept))
    if stage.reduce is not None and kept_groups < min(stage.reduce, groups):
        yield (
            f"{stage.name}: {kept_groups} of {groups} variants are kept, and not {stage.reduce}: "
            "the others have no figure to rank by"
        )
    if scheduler is not None and done and not any(is_number(entry.best) for entry in done):
        yield (
            f"{stage.name}: no variant had a figure, so !{scheduler.tag} had nothing to "
            "compare; metric() of the component must return what it ranks by"
        )
