"""A trial scheduler that stops trials where a limit of the stage is reached."""

from __future__ import annotations

from collections.abc import Callable

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from flambe.experiment.executors.tune.algorithms.wrapped_scheduler import WrappedScheduler
from flambe.experiment.search.engines import METRIC
from flambe.experiment.search.stage_limits import StageLimits


class LimitedScheduler(WrappedScheduler):
    """A scheduler that also stops trials where a limit of the stage is reached.

    Parameters
    ----------
    scheduler
        The scheduler that it wraps.
    limits
        The limits.
    on_limit
        Called with each trial that a limit stops, and the reason.
    """

    def __init__(
        self,
        scheduler: TrialScheduler,
        limits: StageLimits,
        on_limit: Callable[[Trial, str], None],
    ) -> None:
        super().__init__(scheduler)
        self._limits = limits
        self._on_limit = on_limit

    def on_trial_result(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> str:
        """Return whether a trial continues after a result."""
        decision = super().on_trial_result(controller, trial, result)
        metric, seconds = result.get(METRIC), result.get("time_total_s", 0.0)
        reason = self._limits.after_step(
            metric if isinstance(metric, int | float) else None,
            seconds if isinstance(seconds, int | float) else 0.0,
        )
        self._stop_waiting(controller, trial)
        if not reason or decision == TrialScheduler.STOP:
            return decision
        self._on_limit(trial, reason)
        return str(TrialScheduler.STOP)

    def on_trial_complete(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> None:
        """Count a trial that finished."""
        super().on_trial_complete(controller, trial, result)
        self._limits.after_end()
        self._stop_waiting(controller, trial)

    def _stop_waiting(self, controller: TuneController, reporting: Trial) -> None:
        """Let no more trials start once the stage is stopped."""
        if not self._limits.reason:
            return
        controller.search_alg.set_finished()
        for trial in controller.get_trials():
            if trial is not reporting and trial.status in (Trial.PENDING, Trial.PAUSED):
                self._on_limit(trial, self._limits.reason)
                controller.stop_trial(trial)
