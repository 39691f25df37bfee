"""Searchers and schedulers of Ray Tune that rank trials without a metric as flambe does.

Tune's own take the metric of a trial for a number. NaN they sort anywhere, for it is neither more
nor less than a number, and most raise ``KeyError`` for one that is missing, which ends the run. So
they are wrapped: to a scheduler, a trial without a number is worse than all others, and to a
searcher, its point failed. Shown by ``tests/experiment/test_engines_ranked.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import MedianStoppingRule, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher
from ray.tune.search.util import _set_search_properties_backwards_compatible

from flambe.experiment.executors.tune.algorithms.wrapped_scheduler import WrappedScheduler
from flambe.experiment.search.engines import METRIC, MODE
from flambe.progress import is_number

# What a scheduler gets for a metric that is not a number. An infinity would turn the percentiles
# that it computes into NaN.
WORST = -1e300


def ranked_searcher(searcher: Searcher | SearchAlgorithm) -> Searcher | SearchAlgorithm:
    """Return a searcher to which points without a metric have failed.

    A searcher wrapped around another one (``Repeater``) handles NaN: the inner one is wrapped.
    """
    inner = getattr(searcher, "searcher", None)
    if isinstance(inner, Searcher):
        searcher.searcher = ranked_searcher(inner)
        return searcher
    return RankedSearcher(searcher) if isinstance(searcher, Searcher) else searcher


def ranked_scheduler(scheduler: TrialScheduler) -> TrialScheduler:
    """Return a scheduler to which a trial without a metric is worse than all others."""
    inner = getattr(scheduler, "_base_scheduler", None)
    if isinstance(inner, TrialScheduler):  # ResourceChangingScheduler
        scheduler._base_scheduler = ranked_scheduler(inner)
        return scheduler
    return RankedScheduler(scheduler)


def _unset_properties(
    engine: Searcher | TrialScheduler, metric: str | None, mode: str | None
) -> tuple[str | None, str | None]:
    """Return the properties that an engine does not have yet: some refuse a second value."""
    own_metric, own_mode = getattr(engine, "_metric", None), getattr(engine, "_mode", None)
    return None if own_metric else metric, None if own_mode else mode


class RankedSearcher(Searcher):  # type: ignore[misc]
    """A searcher to which points without a metric have failed.

    Parameters
    ----------
    searcher
        The searcher that it wraps.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        super().__init__(metric=METRIC, mode=MODE)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, object], **spec: object
    ) -> bool:
        """Set what the searcher ranks by, and where it searches."""
        is_set: bool = _set_search_properties_backwards_compatible(
            self.searcher.set_search_properties,
            *_unset_properties(self.searcher, metric, mode),
            config,
            **spec,
        )
        return is_set

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Set how many trials may run at a time."""
        return bool(self.searcher.set_max_concurrency(max_concurrent))

    def suggest(self, trial_id: str) -> object:
        """Propose a point."""
        return self.searcher.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: Mapping[str, object]) -> None:
        """Pass on a result with a metric."""
        if is_number(result.get(METRIC)):
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False
    ) -> None:
        """Pass on the last result; without a metric, the trial failed."""
        if result is not None and not is_number(result.get(METRIC)):
            result, error = None, True
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def add_evaluated_point(
        self,
        parameters: dict[str, object],
        value: float | None,
        *arguments: object,
        **options: object,
    ) -> None:
        """Pass on a point of an earlier run."""
        self.searcher.add_evaluated_point(parameters, value, *arguments, **options)

    def on_pause(self, trial_id: str) -> None:
        """Pass on that a trial is paused."""
        self.searcher.on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """Pass on that a trial continues."""
        self.searcher.on_unpause(trial_id)

    def get_state(self) -> dict[str, object]:
        """Return nothing: the inner searcher has the state."""
        return {}

    def set_state(self, state: dict[str, object]) -> None:
        """Do nothing: the inner searcher has the state."""

    def save(self, checkpoint_path: str) -> None:
        """Save the inner searcher."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the inner searcher."""
        self.searcher.restore(checkpoint_path)


class RankedScheduler(WrappedScheduler):
    """A scheduler to which a trial without a metric is worse than all others.

    Parameters
    ----------
    scheduler
        The scheduler that it wraps.
    """

    def __init__(self, scheduler: TrialScheduler) -> None:
        super().__init__(scheduler)
        self._measured: set[str] = set()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        """Set what the scheduler ranks by."""
        metric, mode = _unset_properties(self.scheduler, metric, mode)
        return super().set_search_properties(metric, mode, **spec)

    def on_trial_result(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> str:
        """Return whether a trial continues after a result."""
        if is_number(result.get(METRIC)):
            self._measured.add(trial.trial_id)
            return str(self.scheduler.on_trial_result(controller, trial, result))
        if isinstance(self.scheduler, MedianStoppingRule):
            return self._by_median(controller, trial, result)
        ranked: dict[str, object] = {**result, METRIC: WORST}
        decision = str(self.scheduler.on_trial_result(controller, trial, ranked))
        # HyperBandForBOHB adds values for its searcher.
        result.update({name: ranked[name] for name in ranked.keys() - result.keys() - {METRIC}})
        return decision

    def _by_median(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> str:
        """Continue a trial that had a metric: the rule ranks by its best, and by means."""
        rule = self.scheduler
        is_young = result.get(rule._time_attr, 0) < rule._grace_period
        if trial.trial_id in self._measured or is_young:
            return str(TrialScheduler.CONTINUE)
        return str(rule.on_trial_result(controller, trial, {**result, METRIC: -math.inf}))

    def on_trial_complete(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> None:
        """Pass on that a trial finished."""
        if is_number(result.get(METRIC)):
            self.scheduler.on_trial_complete(controller, trial, result)
        elif not isinstance(self.scheduler, MedianStoppingRule):
            self.scheduler.on_trial_complete(controller, trial, {**result, METRIC: WORST})
