"""What a run remembers of its trials from one search of Tune to the next."""

from __future__ import annotations

from collections.abc import Collection
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
        in_use: Collection[str] = (),
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
        in_use
            Those that other trials may read.
        """
        kept = self._checkpoints.setdefault(trial_id, {})
        kept.update([latest])
        # The paths last given win, of the same step.
        newest_first = dict(reversed(kept.items()))
        chosen = replace(retention.at_least(KEPT_CHECKPOINTS), every=0).select(newest_first)
        assert chosen is not None
        for path in [path for path in kept if path not in chosen and path not in in_use]:
            # Those of each tenth step stay: nothing need be remembered of them.
            if not retention.every or kept[path].step % retention.every:
                self.upkeep.remove(checkpoints, path)
            del kept[path]
