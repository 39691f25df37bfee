"""Replaces a worker that cannot be reused, where Tune would fail its next trial."""

from __future__ import annotations

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

_NEEDED = ("_on_trial_reset", "_remove_actor", "_schedule_trial_actor")


def replace_refusing_actors() -> bool:
    """Make Tune start a new actor where one answers a reset with False, instead of failing.

    Shown by ``tests/experiment/test_tune.py``.

    Returns
    -------
    bool
        Whether this version of Tune can: with another one, actors must not be reused at all.
    """
    if getattr(TuneController, "_flambe_replaces", False):
        return True
    if not all(hasattr(TuneController, name) for name in _NEEDED):
        return False
    original = TuneController._on_trial_reset

    def on_trial_reset(self: TuneController, trial: Trial, success: bool) -> None:
        if success:
            original(self, trial, success)
            return
        self._resetting_trials.remove(trial)
        actor = self._trial_to_actor.pop(trial)
        self._actor_to_trial.pop(actor)
        trial.set_ray_actor(None)
        self._remove_actor(tracked_actor=actor)
        self._schedule_trial_actor(trial)

    TuneController._on_trial_reset = on_trial_reset
    TuneController._flambe_replaces = True
    return True
