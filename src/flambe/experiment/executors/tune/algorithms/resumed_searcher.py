"""A searcher that continues where an earlier run was interrupted, as many trials at once as fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm, Searcher

from flambe.experiment.executors.tune.algorithms.earlier_points import (
    EarlierPoints,
    has_values,
    release,
    tell,
)
from flambe.experiment.executors.tune.algorithms.ranking import ranked_searcher
from flambe.experiment.executors.tune.trial import RECORDED, TrialResult
from flambe.experiment.search.engines import METRIC
from flambe.experiment.search.stage_search import (
    EvaluatedPoint,
    SearcherOptions,
    UnfinishedPoint,
)
from flambe.progress import is_number

SLOTS_PERIOD = 2.0  # seconds between two looks at how many trials fit: hosts come and go
# Repetitions of a point that a searcher proposes before it gets to where it was.
MOST_ATTEMPTS, SPARE_ATTEMPTS = 1000, 5
# How often a searcher may propose nothing while no trial runs.
MOST_REFUSALS = 20


def search_algorithm(
    options: SearcherOptions | None,
    slots: Callable[[], int],
    *,
    pauses: bool = False,
) -> Searcher | SearchAlgorithm | None:
    """Return what proposes values, as TuneConfig takes it.

    Only a Searcher learns from earlier points: what draws at random is just asked for the rest.

    Parameters
    ----------
    options
        The searcher and its options; None without one.
    slots
        Returns how many trials fit on the hosts.
    pauses
        Whether the scheduler pauses trials until others have come as far: a limit would keep those
        others from starting.
    """
    if options is None:
        return None
    searcher = ranked_searcher(options.searcher)
    if not isinstance(options.searcher, Searcher):
        return searcher
    limit = options.max_concurrent
    if isinstance(options.searcher, ConcurrencyLimiter):
        limit = limit or options.searcher.max_concurrent
    return StageSearcher(searcher, options, slots, limit, limits=not pauses)


class StageSearcher(ConcurrencyLimiter):  # type: ignore[misc]
    """A searcher that knows the points of an earlier run, and proposes none of them again.

    Points that are unfinished are continued first.

    Parameters
    ----------
    searcher
        The searcher.
    options
        Its options, and the points of the earlier run.
    slots
        Returns how many trials fit on the hosts.
    limit
        How many trials may run at a time; None for as many as fit.
    limits
        Whether trials are limited here; else only how many wait for a host.
    """

    def __init__(
        self,
        searcher: Searcher,
        options: SearcherOptions,
        slots: Callable[[], int],
        limit: int | None = None,
        *,
        limits: bool = True,
    ) -> None:
        self._slots = slots
        self._limit = limit
        self._limits = limits or limit is not None
        self._looked_at = time.monotonic()
        super().__init__(searcher, max_concurrent=self._room())
        self._earlier = EarlierPoints(options.evaluated, options.unfinished)
        self._unfinished = list(options.unfinished)
        #: The ids of trials that continue a point of the earlier run.
        self._continued: dict[str, UnfinishedPoint] = {}
        #: The id of a trial → the id that the searcher knows it by.
        self._inner_ids: dict[str, str] = {}
        #: How often in a row the searcher proposed nothing, though no trial runs.
        self._refused = 0

    def __deepcopy__(self, memo: dict[int, object]) -> StageSearcher:
        return self  # Tune copies it where it pickles its own state

    def __getstate__(self) -> dict[str, object]:
        return {}  # flambe reads no pickles of Tune

    def _room(self) -> int:
        return self._limit or max(1, self._slots())

    def _set_searcher_max_concurrency(self) -> None:
        # The limit of a ConcurrencyLimiter that the user wrote must stay what it is.
        self._limit_concurrency = self._limits

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, object], **spec: object
    ) -> bool:
        """Set the search spaces, and give the searcher the earlier points."""
        self._earlier.prepare(self.searcher, metric, mode, config)
        is_set: bool = super().set_search_properties(metric, mode, config, **spec)
        self._earlier.add_to(self.searcher)
        return is_set

    def suggest(self, trial_id: str) -> object:
        """Propose a new point; see :class:`ray.tune.search.Searcher`."""
        if time.monotonic() - self._looked_at > SLOTS_PERIOD:
            self._looked_at = time.monotonic()
            self.max_concurrent = self._room()
        if self._unfinished:
            return self._continue(trial_id)
        proposal: object = None
        repeated = len(self._earlier.evaluated) + len(self._continued)
        for attempt in range(min(2 * repeated, MOST_ATTEMPTS) + SPARE_ATTEMPTS):
            # A searcher takes one result for each id that it was asked with.
            inner_id = f"{trial_id}_{attempt}"
            proposal = super().suggest(inner_id)
            if not isinstance(proposal, Mapping):
                return self._nothing(proposal)
            self._refused = 0
            if not self._is_known(inner_id, proposal):
                self._inner_ids[trial_id] = inner_id
                # From here on it proposes what is new: what it has not heard of, it gets now.
                self._earlier.add_to(self.searcher, ends=True)
                break
        else:
            self._inner_ids[trial_id] = inner_id
        return proposal

    def _is_known(self, inner_id: str, proposal: Mapping[str, object]) -> bool:
        """Answer a proposal of the earlier run; return whether it is one."""
        if point := self._earlier.answer(proposal):
            tell(super(), inner_id, point)
            return True
        for trial_id, continued in self._continued.items():
            if has_values(continued, proposal):
                # It runs: the searcher gets its results as those of what it has just proposed.
                del self._continued[trial_id]
                self._forget_live(trial_id)
                self._inner_ids[trial_id] = inner_id
                return True
        return False

    def _nothing(self, proposal: object) -> object:
        """Return that there is no proposal, or that there will be none.

        Some searchers wait for ever once they have tried enough (ZOOpt, with a small budget): if no
        trial runs whose result they could wait for, they are at their end.
        """
        idle = self._limit_concurrency and not self.live_trials
        if idle:
            release(self.searcher)
        self._refused = self._refused + 1 if proposal is None and idle else 0
        return Searcher.FINISHED if self._refused > MOST_REFUSALS else proposal

    def _continue(self, trial_id: str) -> dict[str, object] | None:
        """Return a point of the earlier run that is unfinished."""
        if self._limit_concurrency and len(self.live_trials) >= self.max_concurrent:
            return None
        self.live_trials.add(trial_id)
        self.num_unfinished_live_trials += 1
        point = self._continued[trial_id] = self._unfinished.pop(0)
        return {RECORDED: point.variant_id, "variant": point.base, "values": dict(point.values)}

    def _forget_live(self, trial_id: str) -> None:
        self.live_trials.discard(trial_id)
        self.num_unfinished_live_trials -= 1

    def on_trial_result(self, trial_id: str, result: TrialResult) -> None:
        """Pass it on under the id that the searcher knows."""
        if trial_id in self._inner_ids:
            super().on_trial_result(self._inner_ids[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: TrialResult | None = None, error: bool = False
    ) -> None:
        """Pass it on under the id that the searcher knows."""
        if trial_id in self._inner_ids:
            super().on_trial_complete(self._inner_ids[trial_id], result, error)
        elif trial_id in self._continued:
            point = self._continued.pop(trial_id)
            self._forget_live(trial_id)
            last: TrialResult = result or {}
            metric = last.get(METRIC)
            figure = metric if is_number(metric) and not error else None
            self._earlier.append(
                EvaluatedPoint(point.base, point.values, figure, last.get("steps", 0))
            )
            self._earlier.add_to(self.searcher)

    def on_pause(self, trial_id: str) -> None:
        """Pass it on under the id that the searcher knows."""
        if trial_id in self._inner_ids:
            super().on_pause(self._inner_ids[trial_id])

    def on_unpause(self, trial_id: str) -> None:
        """Pass it on under the id that the searcher knows."""
        if trial_id in self._inner_ids:
            super().on_unpause(self._inner_ids[trial_id])
