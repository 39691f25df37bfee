"""One stage as Ray Tune runs it: what becomes of each of its trials."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ray import tune

from flambe.experiment.executors.base import VariantListener
from flambe.experiment.executors.failures import Failure
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.tune import diagnosis
from flambe.experiment.executors.tune.trainable import AT_END, ATTEMPT, HOST, REPETITION
from flambe.experiment.search.engines import METRIC, STEPS
from flambe.experiment.storage.checkpoints import FINAL, RESUMED, Checkpoints
from flambe.experiment.variants.expansion import Variant

if TYPE_CHECKING:
    from flambe.experiment.executors.tune.driver import TuneExecutor

# How often a variant may be lost with its host and not have come any further.
MOST_LOSSES = 10


class StageCallback(tune.Callback):  # type: ignore[misc]
    """Tells the listener what Tune does with the trials.

    Tune pickles its callbacks, though flambe never reads them: they know their stage by its key.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def stage(self) -> StageRun:
        """The stage."""
        return live[self.key]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts."""
        self.stage.trials[trial.trial_id] = trial
        trial.should_recover = _Recovery(self.key, trial.trial_id)
        self.stage.to.on_start(self.stage.variant(trial), trial.node_ip or "")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A step is done."""
        if self.stage.executor.nodes is not None:
            self.stage.executor.nodes.progressed()
        step, metric = result.get(STEPS), result.get(METRIC)
        if step is not None:
            host = str(result.get(HOST, ""))
            self.stage.to.on_step(self.stage.variant(trial), step, metric, host)

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """A checkpoint is written."""
        self.stage.prune(trial, checkpoint.path)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is at its end, or was stopped."""
        self.stage.end(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed, and is tried again."""
        self.stage.fail(trial, final=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self.stage.fail(trial, final=True)


class _Recovery:
    """Says whether Tune tries a trial again: not if the next try would end in the same way.

    Tune asks the trial itself, and pickles it: this knows the trial by its id.
    """

    def __init__(self, key: str, trial_id: str) -> None:
        self.key, self.trial_id = key, trial_id

    def __call__(self) -> bool:
        stage = live[self.key]
        trial = stage.trials[self.trial_id]
        if stage.forgiven(trial):
            return True
        return not stage.failure(trial).lasting and bool(type(trial).should_recover(trial))


def trial_name(key: str, trial: Any) -> str:
    """Return the name of a trial of a stage that runs."""
    return live[key].variant(trial).id


def trial_folder(key: str, trial: Any) -> str:
    """Return the name of its folder."""
    return live[key].variant(trial).name


#: The stages that run now in this process.
live: dict[str, StageRun] = {}


class StageRun:
    """One stage as Tune runs it: trials and the variants that they run."""

    def __init__(
        self, executor: TuneExecutor, task: StageTask, to: VariantListener, taken: Collection[str]
    ) -> None:
        self.executor = executor
        self.task = task
        self.to = to
        self.checkpoints = task.storage.checkpoints()
        #: Variants that a search suggested already.
        self.taken = set(taken)
        #: The trials that were started, by their ids, and what those that fail reported.
        self.trials: dict[str, Any] = {}
        self.failures: dict[str, Failure] = {}
        self._forgiven: dict[str, bool] = {}
        #: Variants whose hosts were lost, and that are to be run again.
        self.lost: list[Variant] = []

    def variant(self, trial: Any) -> Variant:
        """Return the variant of a trial.

        Tune asks for the name of a trial when it has made it. A search may have suggested the same
        values before: it is a repetition then, and its worker is told by its configuration.
        """
        config = trial.config
        values = config.get("values") or {}
        variant = self.task.variant_of(config["variant"], values, config.get(REPETITION, 0))
        if values and REPETITION not in config:
            for repetition in itertools.count():
                variant = self.task.variant_of(config["variant"], values, repetition)
                if variant.id not in self.taken:
                    break
            config[REPETITION] = repetition
            self.taken.add(variant.id)
        if ATTEMPT not in config:
            config[ATTEMPT] = self.executor.next_attempt(variant)
        return variant

    def prune(self, trial: Any, latest: str) -> None:
        """Keep the two latest checkpoints: Tune, told to do so, would save its state each time."""
        kept = self.executor.checkpoints.setdefault(trial.trial_id, [])
        kept.append(latest)
        while len(kept) > 2:
            self.executor.upkeep.remove(self.checkpoints, kept.pop(0))

    def end(self, trial: Any) -> None:
        """Note that a trial is at its end."""
        variant = self.variant(trial)
        stopped = not (trial.last_result or {}).get(AT_END, False)
        folder = self.checkpoints.folder(variant.stage, variant.name)
        self.executor.upkeep.settle(self.checkpoints, folder, FINAL)
        self.to.on_end(variant, stopped=stopped)

    def failure(self, trial: Any) -> Failure:
        """Return what a trial failed of; Tune asks whether to try it again before it says so."""
        if trial.trial_id not in self.failures:
            self.failures[trial.trial_id] = diagnosis.failure_of(
                self.executor.collector, self.variant(trial), trial
            )
        return self.failures[trial.trial_id]

    def fail(self, trial: Any, *, final: bool) -> None:
        """Note that a trial failed; unless final it is tried again."""
        variant = self.variant(trial)
        failure = self.failure(trial)
        forgiven = self.forgiven(trial)
        self.failures.pop(trial.trial_id, None)
        self._forgiven.pop(trial.trial_id, None)
        if forgiven:
            if final:
                self.lost.append(variant)
            else:
                trial.run_metadata.num_failures -= 1
                trial.config[ATTEMPT] = self.executor.next_attempt(variant)
            self.to.on_failure(variant, None, "its host was lost; another one goes on", final=False)
            return
        if failure.halts:
            self.executor.halt(failure.text)
            return
        if not final:
            trial.config[ATTEMPT] = self.executor.next_attempt(variant)
        self.to.on_failure(variant, failure.error, failure.text, final)

    def forgiven(self, trial: Any) -> bool:
        """Whether a trial did nothing wrong: its host was lost, and another one goes on with it.

        Tune tries it again at once, whatever ``max_failures`` says: a factory may be idle.
        """
        if trial.trial_id not in self._forgiven:
            lost = self.executor.nodes is not None and self.failure(trial).host_lost
            self._forgiven[trial.trial_id] = lost and self._may_be_lost(trial)
        return self._forgiven[trial.trial_id]

    def _may_be_lost(self, trial: Any) -> bool:
        """Whether a variant came further since its host was lost, or this is not too often."""
        identity, step = self.variant(trial).id, (trial.last_result or {}).get("steps", 0)
        known, times = self.executor.losses.get(identity, (-1, 0))
        self.executor.losses[identity] = (step, 1 if step > known else times + 1)
        return self.executor.losses[identity][1] <= MOST_LOSSES


def resumed(checkpoints: Checkpoints, variants: Sequence[Variant]) -> dict[str, str]:
    """Return the checkpoints that variants go on from, out of the way of new ones."""
    folders = {v.id: checkpoints.folder(v.stage, v.name) for v in variants}
    kept = {identity: checkpoints.settle(place, RESUMED) for identity, place in folders.items()}
    return {identity: place for identity, place in kept.items() if place is not None}
