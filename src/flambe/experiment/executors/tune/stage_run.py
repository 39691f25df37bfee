"""One stage as Ray Tune runs it: what happens to each of its trials."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Sequence

from ray import tune
from ray.tune import Checkpoint
from ray.tune.experiment import Trial

from flambe.experiment.executors.base import VariantListener
from flambe.experiment.executors.failures import Failure
from flambe.experiment.executors.stage_task import Explored, StageTask
from flambe.experiment.executors.tune.algorithms.population import Copy
from flambe.experiment.executors.tune.diagnosis import FailureDiagnosis
from flambe.experiment.executors.tune.ray_nodes import RayNodeMonitor
from flambe.experiment.executors.tune.trial import (
    ATTEMPT,
    COPIES,
    EXPLORED,
    RECORDED,
    REPETITION,
    TrialConfig,
    TrialResult,
)
from flambe.experiment.executors.tune.trial_history import TrialHistory
from flambe.experiment.retention import Retention
from flambe.experiment.search.spaces import as_plain
from flambe.experiment.storage.checkpoints import FINAL, RESUMED, Checkpoints
from flambe.experiment.storage.manifest import Manifest
from flambe.experiment.variants.expansion import Variant

LOCAL_RAY_ENDED = (
    "Ray on this machine ended: it was killed, perhaps because the machine ran out of memory\n"
    "  finished variants are kept"
)


class StageRun:
    """One stage as Tune runs it: trials, and the variants that they run.

    Tune pickles all that refers to this object (callbacks, trials, its own settings), and flambe
    never reads those pickles: they contain nothing of it. A copy is the object itself.

    Parameters
    ----------
    task
        The task of the stage.
    listener
        Called as variants run.
    suggested_ids
        The ids of the variants that a search proposed before.
    history
        What the run remembers of its trials.
    diagnosis
        Finds out why trials failed.
    halt
        Ends the run, for a reason.
    nodes
        The Ray nodes of a cluster; None on one machine.
    """

    def __init__(
        self,
        task: StageTask,
        listener: VariantListener,
        suggested_ids: Collection[str],
        history: TrialHistory,
        diagnosis: FailureDiagnosis,
        halt: Callable[[str], None],
        nodes: RayNodeMonitor | None,
    ) -> None:
        self.task = task
        self.listener = listener
        self.checkpoints = task.storage.checkpoints()
        #: Variants whose hosts were lost, and that are to be run again.
        self.lost: list[Variant] = []
        self._suggested_ids = set(suggested_ids)
        self._history = history
        self._diagnosis = diagnosis
        self._halt = halt
        self._nodes = nodes
        #: Whether the variants are a population, whose members copy one another.
        self.population = False
        self._copies: dict[str, int] = {}
        #: The ids of trials that a limit stopped → the reason.
        self._limits: dict[str, str] = {}
        #: By the ids of trials: why they failed, and whether only their host did.
        self._failures: dict[str, Failure] = {}
        self._forgiven: dict[str, bool] = {}

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __deepcopy__(self, memo: dict[int, object]) -> StageRun:
        return self

    def variant(self, trial: Trial) -> Variant:
        """Return the variant of a trial.

        Tune asks for the name of a trial when it has made it. If a search proposed the same values
        before, the trial is a repetition, which its configuration tells its worker.
        """
        config: TrialConfig = trial.config
        values = config.get("values") or {}
        if values and ATTEMPT not in config:
            config["values"] = values = {path: as_plain(v) for path, v in values.items()}
        if RECORDED in config:
            variant = self.task.variants[self.task.stage][config[RECORDED]]
        else:
            variant = self.task.variant_of(config["variant"], values, config.get(REPETITION, 0))
        if values and REPETITION not in config and RECORDED not in config:
            for repetition in itertools.count():
                variant = self.task.variant_of(config["variant"], values, repetition)
                if variant.id not in self._suggested_ids:
                    break
            config[REPETITION] = repetition
            self._suggested_ids.add(variant.id)
        if ATTEMPT not in config:
            self._count_attempt(trial, variant)
            if self.population:
                self._join_population(trial, variant)
        return variant

    def _join_population(self, trial: Trial, variant: Variant) -> None:
        """Give a trial the values of a member, where Tune changes them."""
        explored = self.task.explored.get(variant.id, Explored(variant.values))
        trial.config.update(explored.values)
        trial.config[EXPLORED] = dict(explored.values)
        trial.config[COPIES] = explored.copies

    def limit(self, trial: Trial, reason: str) -> None:
        """Note why a limit stops a trial."""
        self._limits[trial.trial_id] = reason

    def copy(self, trial: Trial, copied: Copy) -> None:
        """Report that a member of a population takes the state of another."""
        variant = self.variant(trial)
        copies = self._copies.get(variant.id)
        if copies is None:
            copies = self.task.explored.get(variant.id, Explored({})).copies
        self._copies[variant.id] = trial.config[COPIES] = copies + 1
        self._count_attempt(trial, variant)
        self._history.hold(copied.checkpoint, trial.trial_id)
        self.listener.on_copy(variant, copied.source, copied.step, copied.values)

    def _count_attempt(self, trial: Trial, variant: Variant) -> None:
        trial.config[ATTEMPT] = self._history.next_attempt(variant.id)

    def trial_name(self, trial: Trial) -> str:
        """Return the name of a trial."""
        return self.variant(trial).id

    def trial_folder(self, trial: Trial) -> str:
        """Return the name of the folder of a trial."""
        return self.variant(trial).name

    def start(self, trial: Trial) -> None:
        """Report that a trial starts."""
        trial.should_recover = _Recovery(self, trial)
        self.listener.on_start(self.variant(trial), trial.node_ip or "")

    def step(self, trial: Trial, result: TrialResult) -> None:
        """Report that a trial has done a step."""
        if self._nodes is not None:
            self._nodes.on_progress()
        if "steps" in result:
            host = result.get("flambe_host", "")
            variant = self.variant(trial)
            seconds = result.get("time_total_s")
            self.listener.on_step(variant, result["steps"], result.get("metric"), host, seconds)

    def prune(self, trial: Trial, latest: str) -> None:
        """Remove the old checkpoints of a trial."""
        self._history.release(trial.trial_id)
        last: TrialResult = trial.last_result
        manifest = Manifest(
            last.get("steps", 0),
            attempt=trial.config.get(ATTEMPT, 1),
            metric=last.get("metric"),
            done=last.get("at_end", False),
        )
        self._history.prune(
            self.checkpoints, trial.trial_id, (latest, manifest), self.task.retention
        )

    def end(self, trial: Trial) -> None:
        """Report that a trial has finished, or was stopped."""
        variant = self.variant(trial)
        last: TrialResult = trial.last_result
        reason = self._limits.pop(trial.trial_id, "")
        if reason and not last.get("steps"):
            self.listener.on_skip(variant, reason)
            return
        folder = self.checkpoints.folder(variant.stage, variant.name)
        self._history.release(trial.trial_id)
        stopped = not last.get("at_end", False)
        ended = functools.partial(
            self.listener.on_end, variant, stopped=stopped, reason=reason if stopped else ""
        )
        # Variants that build upon it start at once: not before its checkpoint is where it stays.
        # Nothing builds upon a member of a population before all of them have ended.
        self._settle(variant, folder, (lambda: None) if self.population else ended)
        if self.population:
            ended()

    def stop_recorded(self, variant: Variant) -> None:
        """Record that a variant was stopped in an earlier run, which was killed just then."""
        folder = self.checkpoints.folder(variant.stage, variant.name)
        self._settle(
            variant, folder, functools.partial(self.listener.on_end, variant, stopped=True)
        )

    def _settle(self, variant: Variant, folder: str, then: Callable[[], None]) -> None:
        """Settle the checkpoints of a variant, once no member of its population needs one."""

        def on_settled(size: int) -> None:
            self.listener.on_stored(variant, size)
            then()

        settle = functools.partial(
            self._history.upkeep.settle,
            self.checkpoints,
            folder,
            FINAL,
            self.task.retention,
            on_settled,
        )
        self._history.when_released(folder, settle)

    def fail(self, trial: Trial, *, final: bool) -> None:
        """Report that a trial failed; unless final it is retried.

        Where Ray itself has ended, so has the run: its variants did not fail, they are interrupted.
        """
        if self._is_over(trial):
            return
        variant = self.variant(trial)
        failure = self._failure(trial)
        forgiven = self._is_forgiven(trial)
        self._failures.pop(trial.trial_id, None)
        self._forgiven.pop(trial.trial_id, None)
        if forgiven:
            if final:
                self.lost.append(variant)
            else:
                trial.run_metadata.num_failures -= 1
                self._count_attempt(trial, variant)
            text = "its host was lost; another host continues it"
            self.listener.on_failure(variant, None, text, final=False)
            return
        if failure.halts:
            self._halt(failure.text)
            return
        if not final:
            self._count_attempt(trial, variant)
        self.listener.on_failure(variant, failure.error, failure.text, final)
        if final:
            folder = self.checkpoints.folder(variant.stage, variant.name)
            on_measured = functools.partial(self.listener.on_stored, variant)
            self._history.upkeep.measure(self.checkpoints, folder, on_measured)

    def should_retry(self, trial: Trial) -> bool:
        """Whether Tune retries a trial: not if the retry would fail the same way.

        Where only its host failed, Tune retries it at once, whatever ``max_failures`` says: another
        factory may be idle.
        """
        if self._is_over(trial):
            return False
        if self._is_forgiven(trial):
            return True
        return not self._failure(trial).lasting and bool(type(trial).should_recover(trial))

    def _is_over(self, trial: Trial) -> bool:
        """Whether Ray has ended, and the run ends with it: nothing but that can be reported."""
        if self._nodes is not None:
            return not self._nodes.head.answers()  # no call to Ray would return
        if self._failure(trial).host_lost:
            self._halt(LOCAL_RAY_ENDED)
            return True
        return False

    def _failure(self, trial: Trial) -> Failure:
        """Return why a trial failed; Tune asks whether to retry it before it reports that."""
        if trial.trial_id not in self._failures:
            self._failures[trial.trial_id] = self._diagnosis.failure_of(
                self.variant(trial), trial.error_file
            )
        return self._failures[trial.trial_id]

    def _is_forgiven(self, trial: Trial) -> bool:
        """Whether a trial failed only because its host was lost, and may continue on another."""
        if trial.trial_id not in self._forgiven:
            last: TrialResult = trial.last_result
            self._forgiven[trial.trial_id] = (
                self._nodes is not None
                and self._failure(trial).host_lost
                and self._history.may_lose_host(self.variant(trial).id, last.get("steps", 0))
            )
        return self._forgiven[trial.trial_id]


class _Recovery:
    """Replaces ``should_recover`` of a trial, which Tune calls to decide whether to retry it."""

    def __init__(self, stage: StageRun, trial: Trial) -> None:
        self._stage = stage
        self._trial = trial

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles the trial, with this in it

    def __call__(self) -> bool:
        return self._stage.should_retry(self._trial)


class StageCallback(tune.Callback):  # type: ignore[misc]
    """Passes what Tune reports of its trials to the stage."""

    def __init__(self, stage: StageRun) -> None:
        self._stage = stage

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """A trial starts."""
        self._stage.start(trial)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: TrialResult,
        **info: object,
    ) -> None:
        """A trial has done a step."""
        self._stage.step(trial, result)

    def on_checkpoint(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        checkpoint: Checkpoint,
        **info: object,
    ) -> None:
        """A checkpoint was written."""
        self._stage.prune(trial, checkpoint.path)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """A trial has finished, or was stopped."""
        self._stage.end(trial)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """A trial failed, and is retried."""
        self._stage.fail(trial, final=False)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """A trial failed for good."""
        self._stage.fail(trial, final=True)


def settle_resumed(
    checkpoints: Checkpoints, variants: Sequence[Variant], retention: Retention
) -> dict[str, str]:
    """Return the checkpoints that variants continue from, renamed out of the way of new ones."""
    folders = {v.id: checkpoints.folder(v.stage, v.name) for v in variants}
    settled = {
        identity: checkpoints.settle(path, RESUMED, retention) for identity, path in folders.items()
    }
    return {identity: result.latest for identity, result in settled.items() if result is not None}
