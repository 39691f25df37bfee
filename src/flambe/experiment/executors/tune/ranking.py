"""Searchers and schedulers of Ray Tune that rank as flambe does.

They take the figure of a trial for a number. One that is NaN they sort anywhere (it is neither more
nor less than another one), and on one that is missing most raise ``KeyError``, which ends the run.
So they are wrapped: for a scheduler, a trial without a number is worse than all others, and a
searcher is told that the point failed.
"""

from __future__ import annotations

import math
from typing import Any

from ray.tune.schedulers import MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.util import _set_search_properties_backwards_compatible

from flambe.experiment.search.engines import METRIC, MODE
from flambe.progress import is_number

# What a scheduler is given for a figure that is no number. An infinity would make NaN of the
# percentiles that it computes.
WORST = -1e300


def ranked_searcher(searcher: Any) -> Any:
    """Return a searcher that is told of points without a figure that they failed.

    One that is wrapped around another one (``Repeater``) reckons with NaN: the inner one is told.
    """
    inner = getattr(searcher, "searcher", None)
    if isinstance(inner, Searcher):
        searcher.searcher = ranked_searcher(inner)
        return searcher
    return RankedSearcher(searcher) if isinstance(searcher, Searcher) else searcher


def ranked_scheduler(scheduler: Any) -> Any:
    """Return a scheduler for which a trial without a figure is worse than all others."""
    inner = getattr(scheduler, "_base_scheduler", None)
    if isinstance(inner, TrialScheduler):  # ResourceChangingScheduler
        scheduler._base_scheduler = ranked_scheduler(inner)
        return scheduler
    return RankedScheduler(scheduler) if scheduler is not None else None


def _missing(engine: Any, metric: str | None, mode: str | None) -> tuple[str | None, str | None]:
    """Return what an engine has not been told itself: some refuse to be told again."""
    own_metric, own_mode = getattr(engine, "_metric", None), getattr(engine, "_mode", None)
    return None if own_metric else metric, None if own_mode else mode


class RankedSearcher(Searcher):  # type: ignore[misc]
    """A searcher that is told of points without a figure that they failed.

    Parameters
    ----------
    searcher
        The searcher.
    """

    def __init__(self, searcher: Any) -> None:
        self.searcher = searcher
        super().__init__(metric=METRIC, mode=MODE)

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Tell the searcher what it ranks by, and where it searches."""
        known: bool = _set_search_properties_backwards_compatible(
            self.searcher.set_search_properties,
            *_missing(self.searcher, metric, mode),
            config,
            **spec,
        )
        return known

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Tell how many trials may be under way."""
        return bool(self.searcher.set_max_concurrency(max_concurrent))

    def suggest(self, trial_id: str) -> Any:
        """Suggest a point."""
        return self.searcher.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a result on, if it has a figure."""
        if is_number(result.get(METRIC)):
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Tell of the last result; without a figure, that the trial failed."""
        if result is not None and not is_number(result.get(METRIC)):
            result, error = None, True
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def add_evaluated_point(self, parameters: Any, value: Any, *more: Any, **options: Any) -> None:
        """Tell of a point that was tried before."""
        self.searcher.add_evaluated_point(parameters, value, *more, **options)

    def on_pause(self, trial_id: str) -> None:
        """Tell that a trial is paused."""
        self.searcher.on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """Tell that a trial continues."""
        self.searcher.on_unpause(trial_id)

    def get_state(self) -> dict[str, Any]:
        """Return nothing: the state is the searcher's."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Save the searcher."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the searcher."""
        self.searcher.restore(checkpoint_path)


class RankedScheduler(TrialScheduler):  # type: ignore[misc]
    """A scheduler for which a trial without a figure is worse than all others.

    Parameters
    ----------
    scheduler
        The scheduler.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._measured: set[str] = set()

    @property
    def metric(self) -> Any:
        """What the scheduler ranks by."""
        return self.scheduler.metric

    @property
    def supports_buffered_results(self) -> bool:
        """Whether it may be given several results at once."""
        return bool(self.scheduler.supports_buffered_results)

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        """Tell the scheduler what it ranks by."""
        own = _missing(self.scheduler, metric, mode)
        return bool(self.scheduler.set_search_properties(*own, **spec))

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Take a new trial."""
        self.scheduler.on_trial_add(controller, trial)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """Tell that a trial failed."""
        self.scheduler.on_trial_error(controller, trial)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """Tell that a trial is gone that did not run."""
        self.scheduler.on_trial_remove(controller, trial)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Return what becomes of a trial after a result."""
        if is_number(result.get(METRIC)):
            self._measured.add(trial.trial_id)
            return self.scheduler.on_trial_result(controller, trial, result)
        if isinstance(self.scheduler, MedianStoppingRule):
            return self._by_median(controller, trial, result)
        ranked = {**result, METRIC: WORST}
        decision = self.scheduler.on_trial_result(controller, trial, ranked)
        # HyperBandForBOHB leaves word for its searcher there.
        result.update({name: ranked[name] for name in ranked.keys() - result.keys() - {METRIC}})
        return decision

    def _by_median(self, controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Let a trial that had a figure go on: the rule looks at the best of each, and at means."""
        rule = self.scheduler
        is_young = result.get(rule._time_attr, 0) < rule._grace_period
        if trial.trial_id in self._measured or is_young:
            return TrialScheduler.CONTINUE
        return rule.on_trial_result(controller, trial, {**result, METRIC: -math.inf})

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Tell that a trial is at its end."""
        if is_number(result.get(METRIC)):
            self.scheduler.on_trial_complete(controller, trial, result)
        elif not isinstance(self.scheduler, MedianStoppingRule):
            self.scheduler.on_trial_complete(controller, trial, {**result, METRIC: WORST})

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Return the trial that runs next."""
        return self.scheduler.choose_trial_to_run(controller)

    def debug_string(self) -> str:
        """Return how the scheduler stands."""
        return str(self.scheduler.debug_string())

    def save(self, checkpoint_path: str) -> None:
        """Save the scheduler."""
        self.scheduler.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the scheduler."""
        self.scheduler.restore(checkpoint_path)
