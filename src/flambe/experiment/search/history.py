"""What variants reported in earlier runs, step by step: what a trial scheduler is restored from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flambe.progress import Status, VariantState, apply_line


@dataclass(frozen=True)
class StepResult:
    """What a variant reported after a step.

    Attributes
    ----------
    step
        The number of steps so far.
    metric
        Its figure; None if it has none.
    seconds
        How long it had been running; None if that was not recorded.
    order
        The position of the report among all reports of the run.
    """

    step: int
    metric: float | None
    seconds: float | None = None
    order: int = 0


@dataclass(frozen=True)
class EarlierTrial:
    """A variant that ran before, as a scheduler is to know it.

    Attributes
    ----------
    variant_id
        Its id.
    results
        What it reported, each step once, in order.
    done
        Whether it has ended; else it continues after the last of these steps.
    """

    variant_id: str
    results: tuple[StepResult, ...]
    done: bool

    def until(self, step: int) -> EarlierTrial:
        """Return it without what was reported after a step: that will be reported again."""
        return replace(self, results=tuple(r for r in self.results if r.step <= step))


def earlier_trials(
    entries: Iterable[VariantState], lines: Iterable[Mapping[str, object]]
) -> list[EarlierTrial]:
    """Return what the variants of a stage reported so far, for its scheduler.

    All of them, in the order in which they were added: HyperBand puts them into brackets so. Of a
    variant that is unfinished, what it reported up to the checkpoint that it continues from: the
    rest will be reported again.

    Parameters
    ----------
    entries
        The variants.
    lines
        The journal of the run.
    """
    reported = read_results(lines)
    trials = [
        EarlierTrial(entry.id, reported.get(entry.id, ()), entry.status.done).until(entry.step)
        for entry in entries
        if entry.status not in (Status.FAILED, Status.MASKED)
    ]
    return trials if any(trial.results for trial in trials) else []


def read_results(lines: Iterable[Mapping[str, object]]) -> dict[str, tuple[StepResult, ...]]:
    """Return what each variant of a journal reported, by id.

    A step that was done a second time, after an interruption, counts once: where it was first, with
    the figure that it has now.
    """
    variants: dict[str, VariantState] = {}
    reports: dict[str, dict[int, StepResult]] = {}
    for order, line in enumerate(lines):
        identity = apply_line(variants, line)
        if identity is None or "step" not in line or "metric" not in line:
            continue
        entry = variants.get(identity)
        if entry is None or entry.step < 1:
            continue
        of_variant = reports.setdefault(identity, {})
        before = of_variant.get(entry.step)
        of_variant[entry.step] = StepResult(
            entry.step,
            entry.metric,
            entry.seconds if entry.seconds is not None or before is None else before.seconds,
            order if before is None else before.order,
        )
    return {
        identity: tuple(sorted(results.values(), key=lambda result: result.step))
        for identity, results in reports.items()
    }
