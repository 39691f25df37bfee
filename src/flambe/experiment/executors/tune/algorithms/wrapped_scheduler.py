"""A trial scheduler around another one: what the wrappers have in common."""

from __future__ import annotations

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler


class WrappedScheduler(TrialScheduler):  # type: ignore[misc]
    """A scheduler that passes everything on.

    Parameters
    ----------
    scheduler
        The scheduler that it wraps.
    """

    def __init__(self, scheduler: TrialScheduler) -> None:
        self.scheduler = scheduler

    @property
    def metric(self) -> str | None:
        """What the scheduler ranks by."""
        metric: str | None = self.scheduler.metric
        return metric

    @property
    def supports_buffered_results(self) -> bool:
        """Whether it accepts several results at once."""
        return bool(self.scheduler.supports_buffered_results)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: object) -> bool:
        """Set what the scheduler ranks by."""
        return bool(self.scheduler.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, controller: TuneController, trial: Trial) -> None:
        """Pass on a new trial."""
        self.scheduler.on_trial_add(controller, trial)

    def on_trial_error(self, controller: TuneController, trial: Trial) -> None:
        """Pass on that a trial failed."""
        self.scheduler.on_trial_error(controller, trial)

    def on_trial_result(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> str:
        """Return whether a trial continues after a result."""
        return str(self.scheduler.on_trial_result(controller, trial, result))

    def on_trial_complete(
        self, controller: TuneController, trial: Trial, result: dict[str, object]
    ) -> None:
        """Pass on that a trial finished."""
        self.scheduler.on_trial_complete(controller, trial, result)

    def on_trial_remove(self, controller: TuneController, trial: Trial) -> None:
        """Pass on that a trial that did not run is removed."""
        self.scheduler.on_trial_remove(controller, trial)

    def choose_trial_to_run(self, controller: TuneController) -> Trial | None:
        """Return the trial that runs next."""
        return self.scheduler.choose_trial_to_run(controller)

    def debug_string(self) -> str:
        """Describe the state of the scheduler."""
        return str(self.scheduler.debug_string())

    def save(self, checkpoint_path: str) -> None:
        """Save the inner scheduler."""
        self.scheduler.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the inner scheduler."""
        self.scheduler.restore(checkpoint_path)
