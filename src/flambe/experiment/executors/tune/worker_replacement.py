"""A worker that may not be used again is replaced: Tune would give up its next trial."""

from __future__ import annotations

from typing import Any

from ray.tune.execution.tune_controller import TuneController

_NEEDED = ("_on_trial_reset", "_remove_actor", "_schedule_trial_actor")


def replace_refusing_actors() -> bool:
    """Let Tune start a fresh actor where one answers a reset with False, instead of failing.

    Returns
    -------
    bool
        Whether this Tune can: of another version, actors must not be used again at all.
    """
    if getattr(TuneController, "_flambe_replaces", False):
        return True
    if not all(hasattr(TuneController, name) for name in _NEEDED):
        return False
    original = TuneController._on_trial_reset

    def on_trial_reset(self: Any, trial: Any, success: bool) -> None:
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
