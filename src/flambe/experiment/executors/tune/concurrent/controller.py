"""Tune's event loop for one stage, as several of them share one Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from flambe.experiment.executors.tune.concurrent.queued_search import QueuedSearch


class StageController(TuneController):  # type: ignore[misc]
    """Runs the trials of a stage, in any thread.

    Parameters
    ----------
    search_alg
        Where trials come from.
    check
        Raises if the stage is to stop; called all the time.
    pending
        How many trials may wait for their processes; None for what Tune takes for a searcher.
    options
        Those of Tune's own controller.
    """

    def __init__(
        self,
        search_alg: QueuedSearch,
        check: Callable[[], None],
        pending: int | None,
        **options: object,
    ) -> None:
        super().__init__(search_alg=search_alg, **options)
        self._check = check
        self._insufficient_resources_manager = _Patience()
        self.update_max_pending_trials(pending)

    def on_step_begin(self) -> None:
        """Stop, if the run was interrupted."""
        self._check()
        super().on_step_begin()

    def _maybe_update_trial_queue(self) -> None:
        """Add the trials that may start; Tune's own waits for one while no trial runs."""
        while len(self._pending_trials) < self._max_pending_trials:
            if self._search_alg.is_finished() or not self._update_trial_queue(blocking=False):
                return

    def _cleanup_cached_actors(self, force_all: bool = False) -> None:
        """End idle processes; also the last one, which Tune keeps, where another stage needs it."""
        self._search_alg.report(idle=self._actor_cache.num_cached_objects)
        release = not self._staged_trials and self._search_alg.queue.must_release()
        super()._cleanup_cached_actors(force_all=force_all or release)

    def _on_trial_reset(self, trial: Trial, success: bool) -> None:
        """Start a new process where one cannot be reused: Tune's own fails the trial."""
        if success:
            super()._on_trial_reset(trial, success)
            return
        self._resetting_trials.remove(trial)
        actor = self._trial_to_actor.pop(trial)
        self._actor_to_trial.pop(actor)
        trial.set_ray_actor(None)
        self._remove_actor(tracked_actor=actor)
        self._schedule_trial_actor(trial)

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Do nothing: flambe resumes from its own files, and Tune's grow with every trial."""


class _Patience:
    """Replaces Tune's own, which warns of trials that cannot start, and fails where there is none.

    flambe compares what variants need with what hosts have before it starts any.
    """

    def on_no_available_trials(self, trials: Sequence[Trial]) -> None:
        """Do nothing."""
