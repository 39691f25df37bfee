"""Variants of one configuration under several seeds, and the mean of their figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flambe.progress.figures import figure_text, is_number, rank
from flambe.progress.state import VariantState


@dataclass(frozen=True)
class SeedGroup:
    """The variants of one configuration, one for each seed.

    Attributes
    ----------
    variants
        The variants, in the order of the seeds.
    numbers
        The figures of those that have a number.
    """

    variants: Sequence[VariantState]
    numbers: Sequence[float]

    @property
    def mean(self) -> float | None:
        """The mean of the figures; None without any."""
        return statistics.fmean(self.numbers) if self.numbers else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a sample (n - 1); None of fewer than two figures."""
        return statistics.stdev(self.numbers) if len(self.numbers) > 1 else None

    @property
    def is_complete(self) -> bool:
        """Whether there is a number under each seed."""
        return len(self.numbers) == len(self.variants)

    def text(self, digits: int = 4) -> str:
        """Return the mean with the deviation: ``0.9132 ± 0.0041``."""
        mean, deviation = figure_text(self.mean, digits), self.deviation
        return mean if deviation is None else f"{mean} ± {figure_text(deviation, 2)}"

    def count_text(self) -> str:
        """Return under how many seeds there is a number: ``5``, or ``3 of 5``."""
        total = len(self.variants)
        return str(total) if self.is_complete else f"{len(self.numbers)} of {total}"


def group_seeds(variants: Iterable[VariantState]) -> list[SeedGroup]:
    """Return variants by their configuration; one that was run under a single seed is alone."""
    groups: dict[str, list[VariantState]] = {}
    for variant in variants:
        groups.setdefault(variant.group or variant.id, []).append(variant)
    return [
        SeedGroup(
            sorted(group, key=lambda variant: variant.seed or 0),
            [v.metric for v in group if v.metric is not None and is_number(v.metric)],
        )
        for group in groups.values()
    ]


def ranked_groups(groups: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Return groups by their means, the best first.

    Those that have numbers under fewer seeds than others come after these: a mean of few may be
    luck.
    """
    groups = list(groups)
    most = max((len(group.numbers) for group in groups), default=0)
    return sorted(groups, key=lambda group: (len(group.numbers) < most, rank(group.mean)))
