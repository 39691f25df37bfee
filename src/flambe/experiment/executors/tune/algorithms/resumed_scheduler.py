"""A trial scheduler that continues where an earlier run was interrupted.

The results that variants reported are in the journal of the run, whatever ended it. They are given
to the scheduler again, in their order, by stand-ins for the trials of then. When Tune adds the
trial that continues a variant, it replaces its stand-in wherever the scheduler holds that.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from flambe.experiment.executors.tune.algorithms.wrapped_scheduler import WrappedScheduler
from flambe.experiment.search.engines import METRIC, STEPS
from flambe.experiment.search.history import EarlierTrial, StepResult

_log = logging.getLogger("flambe.run")


class StandIn:
    """As much of a trial of Tune as schedulers look at: one of an earlier run."""

    def __init__(self, variant_id: str) -> None:
        self.trial_id = f"earlier_{variant_id}"
        self.variant_id = variant_id
        self.status: str = Trial.PENDING
        self.config: dict[str, object] = {}
        self.last_result: dict[str, object] = {}
        self.is_saving = False
        self.is_restoring = False

    def is_finished(self) -> bool:
        """Return whether it has ended."""
        return bool(self.status == Trial.TERMINATED)

    def __str__(self) -> str:
        return self.variant_id


class _Controller:
    """As much of Tune as schedulers ask for while results are replayed."""

    def __init__(self, scheduler: TrialScheduler, trials: Sequence[StandIn]) -> None:
        self._scheduler = scheduler
        self._trials = trials
        #: HyperBandForBOHB tells its searcher what it pauses.
        nothing = SimpleNamespace(on_pause=lambda name: None, on_unpause=lambda name: None)
        self.search_alg = SimpleNamespace(searcher=nothing)

    def get_trials(self) -> list[StandIn]:
        return list(self._trials)

    def get_live_trials(self) -> list[StandIn]:
        return [trial for trial in self._trials if not trial.is_finished()]

    def stop_trial(self, trial: StandIn) -> None:
        if trial.status in (Trial.PENDING, Trial.PAUSED):
            self._scheduler.on_trial_remove(self, trial)
        trial.status = Trial.TERMINATED

    def pause_trial(self, trial: StandIn, should_checkpoint: bool = True) -> None:
        trial.status = Trial.PAUSED


def replay(
    scheduler: TrialScheduler, earlier: Sequence[EarlierTrial]
) -> tuple[TrialScheduler, dict[str, StandIn], set[str]]:
    """Give a scheduler the results of earlier trials.

    Parameters
    ----------
    scheduler
        The scheduler, with its metric set.
    earlier
        The trials.

    Returns
    -------
    TrialScheduler, dict, set
        The scheduler; the stand-ins of the variants that continue, by id; and the ids of those
        that it would not have continued.
    """
    fresh = copy.deepcopy(scheduler)
    try:
        return (scheduler, *_replay(scheduler, earlier))
    except Exception as error:  # a scheduler of the user's may raise anything
        _log.warning(
            "%s does not take the results of the earlier run, and starts without them: %s",
            type(scheduler).__name__,
            error or type(error).__name__,
        )
        return fresh, {}, set()


def _replay(
    scheduler: TrialScheduler, earlier: Sequence[EarlierTrial]
) -> tuple[dict[str, StandIn], set[str]]:
    trials = {trial.variant_id: trial for trial in earlier}
    stand_ins = {identity: StandIn(identity) for identity in trials}
    controller = _Controller(scheduler, list(stand_ins.values()))
    for stand_in in stand_ins.values():
        scheduler.on_trial_add(controller, stand_in)
    reports = sorted(_reports(trials.values()), key=lambda report: report[0])
    for _, identity, result in reports:
        stand_in = stand_ins[identity]
        if stand_in.is_finished():
            continue
        stand_in.status = Trial.RUNNING
        stand_in.last_result = as_reported(result)
        decision = scheduler.on_trial_result(controller, stand_in, dict(stand_in.last_result))
        ended = trials[identity].done and result is trials[identity].results[-1]
        if decision == TrialScheduler.STOP or ended:
            scheduler.on_trial_complete(controller, stand_in, dict(stand_in.last_result))
            stand_in.status = Trial.TERMINATED
        elif decision == TrialScheduler.PAUSE:
            stand_in.status = Trial.PAUSED
    unfinished = {k: v for k, v in stand_ins.items() if not trials[k].done}
    ended_now = {identity for identity, v in unfinished.items() if v.is_finished()}
    return {k: v for k, v in unfinished.items() if k not in ended_now}, ended_now


def _reports(trials: Iterable[EarlierTrial]) -> Iterable[tuple[int, str, StepResult]]:
    for trial in trials:
        for result in trial.results:
            yield result.order, trial.variant_id, result


def as_reported(result: StepResult) -> dict[str, object]:
    """Return what a variant reported as Tune gives it to schedulers."""
    reported: dict[str, object] = {"training_iteration": result.step, STEPS: result.step}
    if result.seconds is not None:
        reported["time_total_s"] = result.seconds
    if result.metric is not None:
        reported[METRIC] = result.metric
    return reported


class ResumedScheduler(WrappedScheduler):
    """A scheduler that knows the trials of an earlier run.

    Parameters
    ----------
    scheduler
        The scheduler, ranked.
    stand_ins
        What stands in it for the variants that continue, by id.
    variant_id
        Returns the id of the variant of a trial.
    """

    def __init__(
        self,
        scheduler: TrialScheduler,
        stand_ins: Mapping[str, StandIn],
        variant_id: Callable[[Trial], str],
    ) -> None:
        super().__init__(scheduler)
        self._stand_ins = dict(stand_ins)
        self._variant_id = variant_id

    def on_trial_add(self, controller: TuneController, trial: Trial) -> None:
        """Let a trial continue in place of its stand-in; else pass on a new trial."""
        stand_in = self._stand_ins.pop(self._variant_id(trial), None)
        if stand_in is None:
            self.scheduler.on_trial_add(controller, trial)
            return
        Substitution({id(stand_in): trial}, {stand_in.trial_id: trial.trial_id}).apply(
            self.scheduler
        )


class Substitution:
    """Replaces objects, and names, wherever the state of a scheduler holds them.

    Schedulers know trials by the objects or by their ids, as keys and as values: rungs of ASHA,
    brackets of HyperBand, results of the median rule (tests/experiment/test_resumed_scheduler.py).

    Parameters
    ----------
    objects
        The ``id()`` of an object → what replaces it.
    names
        A text → what replaces it.
    """

    def __init__(self, objects: Mapping[int, object], names: Mapping[str, str]) -> None:
        self._objects = objects
        self._names = names
        self._seen: set[int] = set()

    def apply(self, value: object) -> object:
        """Return what replaces a value; containers are changed in place."""
        if id(value) in self._objects:
            return self._objects[id(value)]
        if isinstance(value, str):
            return self._names.get(value, value)
        if isinstance(value, tuple):
            return tuple(map(self.apply, value)) if type(value) is tuple else value
        if id(value) in self._seen:
            return value
        self._seen.add(id(value))
        if isinstance(value, dict):
            items = [(self.apply(key), self.apply(child)) for key, child in value.items()]
            value.clear()
            value.update(items)
        elif isinstance(value, list):
            value[:] = map(self.apply, value)
        elif isinstance(value, set):
            items_of_set = [self.apply(child) for child in value]
            value.clear()
            value.update(items_of_set)
        elif isinstance(value, TrialScheduler) or type(value).__module__.startswith(
            "ray.tune.schedulers"
        ):
            for name, child in vars(value).items():
                setattr(value, name, self.apply(child))
        return value
