"""A searcher that continues where an earlier run was interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.variant_generator import parse_spec_vars

from flambe.experiment.executors.tune.ranking import ranked_searcher
from flambe.experiment.executors.tune.trial import TrialResult
from flambe.experiment.search.engines import METRIC
from flambe.experiment.search.stage_search import EvaluatedPoint, SearcherOptions


def search_algorithm(
    options: SearcherOptions | None,
) -> tuple[Searcher | SearchAlgorithm | None, int | None]:
    """Return what proposes values, as TuneConfig takes it, and how many trials may run at a time.

    Only a Searcher learns from earlier points: what draws at random is just asked for the rest. The
    resumed searcher limits the trials itself.
    """
    if options is None:
        return None, None
    searcher = ranked_searcher(options.searcher)
    if options.evaluated and isinstance(options.searcher, Searcher):
        return ResumedSearcher(searcher, options), None
    return searcher, options.max_concurrent


class ResumedSearcher(ConcurrencyLimiter):  # type: ignore[misc]
    """A searcher that knows the points of an earlier run, and proposes none of them again.

    One that draws from a seed proposes the same points again: it is given their known results at
    once, which brings it to where it was.

    Parameters
    ----------
    searcher
        The searcher.
    options
        Its options, and the points of the earlier run.
    """

    def __init__(self, searcher: Searcher, options: SearcherOptions) -> None:
        super().__init__(searcher, max_concurrent=options.max_concurrent or 1)
        self._evaluated = options.evaluated
        #: The id of a trial → the id that the searcher knows it by.
        self._inner_ids: dict[str, str] = {}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, object], **spec: object
    ) -> bool:
        """Set the search spaces, and give the searcher the earlier points, if it takes them."""
        is_set: bool = super().set_search_properties(metric, mode, config, **spec)
        names = {"/".join(path) for path, _ in parse_spec_vars(config)[1]}
        for point in self._evaluated:
            values = {f"values/{path}": value for path, value in point.values.items()}
            values["variant"] = point.base
            parameters = {name: values[name] for name in names if name in values}
            with contextlib.suppress(NotImplementedError):
                self.add_evaluated_point(parameters, point.metric, error=point.metric is None)
        return is_set

    def suggest(self, trial_id: str) -> object:
        """Propose a new point; see :class:`ray.tune.search.Searcher`."""
        proposal: object = None
        for attempt in range(len(self._evaluated) + 1):
            # A searcher takes one result for each id that it was asked with.
            self._inner_ids[trial_id] = inner_id = f"{trial_id}_{attempt}"
            proposal = super().suggest(inner_id)
            point = self._evaluated_point(proposal) if isinstance(proposal, Mapping) else None
            if point is None:
                break
            failed = point.metric is None
            result = None if failed else {METRIC: point.metric}
            super().on_trial_complete(inner_id, result, failed)
        return proposal

    def _evaluated_point(self, proposal: Mapping[str, object]) -> EvaluatedPoint | None:
        for point in self._evaluated:
            if proposal.get("values") == point.values and proposal.get("variant") == point.base:
                return point
        return None

    def on_trial_result(self, trial_id: str, result: TrialResult) -> None:
        """Pass it on under the id that the searcher knows."""
        super().on_trial_result(self._inner_ids[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: TrialResult | None = None, error: bool = False
    ) -> None:
        """Pass it on under the id that the searcher knows."""
        super().on_trial_complete(self._inner_ids[trial_id], result, error)
