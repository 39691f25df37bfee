"""What a run remembers of its trials from one search of Tune to the next."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.manifest import Manifest
from flambe.experiment.storage.upkeep import Upkeep

# How often the host of a variant may be lost without the variant making progress.
MAX_LOSSES = 10
KEPT_CHECKPOINTS = 2  # of a trial that runs


class TrialHistory:
    """The attempts at variants, the hosts that they lost, and the checkpoints that they keep."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        #: Id → the step at which the host of a variant was lost last, and how often it was.
        self._losses: dict[str, tuple[int, int]] = {}
        #: The checkpoints of running trials, the oldest first.
        self._checkpoints: dict[str, dict[str, Manifest]] = {}
        #: The checkpoints that other trials continue from → those trials.
        self._held: dict[str, set[str]] = {}
        #: What is to be done once checkpoints are no longer held.
        self._postponed: list[tuple[str, Callable[[], None]]] = []
        self.upkeep = Upkeep()

    def next_attempt(self, variant_id: str) -> int:
        """Return the number of the next attempt at a variant, from 1."""
        self._attempts[variant_id] = number = self._attempts.get(variant_id, 0) + 1
        return number

    def may_lose_host(self, variant_id: str, step: int) -> bool:
        """Record that a host was lost; return whether its variant is retried without a failure.

        It is if the variant made progress since its last host was lost, or this is not too often.
        """
        last_step, count = self._losses.get(variant_id, (-1, 0))
        self._losses[variant_id] = (step, 1 if step > last_step else count + 1)
        return self._losses[variant_id][1] <= MAX_LOSSES

    def prune(
        self,
        checkpoints: Checkpoints,
        trial_id: str,
        latest: tuple[str, Manifest],
        retention: Retention,
    ) -> None:
        """Keep the two latest checkpoints of a trial, and those that its stage keeps.

        Tune could do so itself, but would then save its own state each time.

        Parameters
        ----------
        checkpoints
            The checkpoints of the run.
        trial_id
            The trial.
        latest
            The path of its latest one, and what that says of itself.
        retention
            What the stage keeps.
        """
        kept = self._checkpoints.setdefault(trial_id, {})
        kept.update([latest])
        # The paths last given win, of the same step.
        newest_first = dict(reversed(kept.items()))
        chosen = replace(retention.at_least(KEPT_CHECKPOINTS), every=0).select(newest_first)
        assert chosen is not None
        for path in [path for path in kept if path not in chosen]:
            # Those of each tenth step stay: nothing need be remembered of them.
            if not retention.every or kept[path].step % retention.every:
                remove = functools.partial(self.upkeep.remove, checkpoints, path)
                self.when_released(path, remove)
            del kept[path]

    def hold(self, checkpoint: str, trial_id: str) -> None:
        """Keep a checkpoint of another trial until a trial has one of its own."""
        self.release(trial_id)
        self._held.setdefault(checkpoint, set()).add(trial_id)

    def release(self, trial_id: str) -> None:
        """Do what was postponed for a trial: it has a checkpoint of its own, or has ended."""
        if not self._held:
            return
        for holders in self._held.values():
            holders.discard(trial_id)
        self._held = {path: holders for path, holders in self._held.items() if holders}
        postponed, self._postponed = self._postponed, []
        for path, action in postponed:
            self.when_released(path, action)

    def release_all(self) -> None:
        """Do all that was postponed: no trial runs."""
        for trial_id in {trial_id for holders in self._held.values() for trial_id in holders}:
            self.release(trial_id)

    def when_released(self, path: str, action: Callable[[], None]) -> None:
        """Do something to a checkpoint, or a folder of some, once no other trial needs one."""
        if any(held == path or held.startswith(f"{path}/") for held in self._held):
            self._postponed.append((path, action))
        else:
            action()
