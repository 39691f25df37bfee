"""The searcher and the scheduler of one stage, ready for Ray Tune."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, HyperBandScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher

from flambe.experiment.executors.base import StageOptions
from flambe.experiment.executors.tune.algorithms.limited_scheduler import LimitedScheduler
from flambe.experiment.executors.tune.algorithms.population import (
    Copy,
    PopulationScheduler,
    is_population,
)
from flambe.experiment.executors.tune.algorithms.ranking import ranked_scheduler
from flambe.experiment.executors.tune.algorithms.resumed_scheduler import ResumedScheduler, replay
from flambe.experiment.executors.tune.algorithms.resumed_searcher import search_algorithm
from flambe.experiment.search.engines import METRIC, MODE


@dataclass(frozen=True)
class StageEngines:
    """The searcher and the scheduler of one stage.

    Attributes
    ----------
    searcher, scheduler
        As TuneConfig takes them.
    num_samples
        How many trials the searcher proposes, those that it continues included.
    stopped
        The ids of variants that the scheduler stopped when the earlier run was killed: they do not
        continue.
    population
        Whether the variants are a population, whose members copy one another.
    """

    searcher: Searcher | SearchAlgorithm | None
    scheduler: TrialScheduler | None
    num_samples: int = 1
    stopped: frozenset[str] = frozenset()
    population: bool = False


def stage_engines(
    options: StageOptions,
    slots: Callable[[], int],
    variant_id: Callable[[Trial], str],
    on_copy: Callable[[Trial, Copy], None],
    on_limit: Callable[[Trial, str], None],
) -> StageEngines:
    """Return the searcher and the scheduler of a stage, with what they knew in an earlier run.

    Parameters
    ----------
    options
        The options of the stage.
    slots
        Returns how many trials fit on the hosts.
    variant_id
        Returns the id of the variant of a trial.
    on_copy
        Called when a member of a population takes the state of another.
    on_limit
        Called with each trial that a limit stops, and the reason.
    """
    if is_population(options.scheduler):
        members = PopulationScheduler(options.scheduler, options.spaces, on_copy, options.earlier)
        return StageEngines(None, _limited(members, options, on_limit), population=True)
    scheduler, stopped = options.scheduler, frozenset[str]()
    pauses = isinstance(scheduler, HyperBandScheduler)
    if isinstance(scheduler, TrialScheduler):
        scheduler = ranked_scheduler(scheduler)
        if options.earlier:
            scheduler.set_search_properties(METRIC, MODE)
            scheduler, stand_ins, ended = replay(scheduler, options.earlier)
            scheduler = ResumedScheduler(scheduler, stand_ins, variant_id)
            stopped = frozenset(ended)
    search = options.search
    if search is not None and stopped:
        unfinished = [point for point in search.unfinished if point.variant_id not in stopped]
        dropped = len(search.unfinished) - len(unfinished)
        search = dataclasses.replace(
            search, unfinished=unfinished, num_samples=search.num_samples - dropped
        )
    return StageEngines(
        search_algorithm(search, slots, pauses=pauses),
        _limited(scheduler, options, on_limit),
        search.num_samples if search is not None else 1,
        stopped,
    )


def _limited(
    scheduler: TrialScheduler | None,
    options: StageOptions,
    on_limit: Callable[[Trial, str], None],
) -> TrialScheduler | None:
    if not options.limits:
        return scheduler
    return LimitedScheduler(scheduler or FIFOScheduler(), options.limits, on_limit)
