"""The points of an earlier run, and how a searcher gets to know them.

A searcher that draws from a seed proposes the same points again: each is answered at once with its
figure, which brings the searcher to where it was, its random numbers included. To any other, the
points are added before it proposes anything: by ``add_evaluated_point`` where it has that (Optuna,
HEBO), else as ``points_to_evaluate``, which it proposes first, and which are answered.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence

from ray.tune.search import Searcher
from ray.tune.search.sample import Categorical, Domain
from ray.tune.search.util import _set_search_properties_backwards_compatible
from ray.tune.search.variant_generator import parse_spec_vars

from flambe.experiment.search.engine_types import AX, HYPEROPT, derives_from
from flambe.experiment.search.engines import METRIC, STEPS
from flambe.experiment.search.stage_search import EvaluatedPoint, UnfinishedPoint

_log = logging.getLogger(__name__)
# How many proposals are looked at to find out whether a searcher proposes the same points again.
PROBES = 2


def has_values(point: EvaluatedPoint | UnfinishedPoint, proposal: Mapping[str, object]) -> bool:
    """Return whether a proposal is a point; values of options that are not chosen do not count."""
    values = proposal.get("values")
    if proposal.get("variant", point.base) != point.base or not isinstance(values, Mapping):
        return False
    return all(values.get(key) == value for key, value in point.values.items())


def as_result(point: EvaluatedPoint) -> dict[str, object] | None:
    """Return the last result of a point as Tune gives it to a searcher; None if it failed."""
    if point.metric is None:
        return None
    # BOHB learns from results at the steps where its scheduler compares trials.
    info = {"budget": point.step}
    steps = {STEPS: point.step, "training_iteration": point.step}
    return {METRIC: point.metric, **steps, "hyperband_info": info}


def tell(searcher: Searcher, trial_id: str, point: EvaluatedPoint | None) -> None:
    """Give a searcher the figure of a point as that of a trial, which failed without one."""
    result = as_result(point) if point is not None else None
    if result is not None:
        searcher.on_trial_result(trial_id, result)
    searcher.on_trial_complete(trial_id, result, result is None)


class EarlierPoints:
    """The points of an earlier run.

    Parameters
    ----------
    evaluated
        Those that are done.
    unfinished
        Those that are continued.

    Attributes
    ----------
    evaluated
        Those that are done, by now.
    """

    def __init__(
        self, evaluated: Sequence[EvaluatedPoint], unfinished: Sequence[UnfinishedPoint]
    ) -> None:
        self.evaluated = list(evaluated)
        self._unfinished = list(unfinished)
        #: Those that the searcher has not heard of.
        self._unheard = list(evaluated)
        #: Whether the searcher is proposing the points of the earlier run again.
        self._repeats = False
        #: The dimensions of the search. A point has no value for those of options that it did not
        #: choose: any will do.
        self._domains: dict[str, Domain] = {}
        #: How many points the searcher proposes first.
        self._proposed_first = 0

    def prepare(
        self, searcher: Searcher, metric: str | None, mode: str | None, config: dict[str, object]
    ) -> None:
        """Find out how a searcher is to get the points; before it gets its search spaces."""
        fixed, spaces, _ = parse_spec_vars(config)
        self._domains = {"/".join(path): space for path, space in spaces}
        self._repeats = not self.evaluated or self._proposes_again(searcher, metric, mode, config)
        if self._repeats:
            return
        inner = _innermost(searcher)
        takes = type(inner).add_evaluated_point is not Searcher.add_evaluated_point
        if not takes and getattr(inner, "_points_to_evaluate", 0) is None:
            points = [self._parameters(p) for p in self.evaluated if p.metric is not None]
            if derives_from(type(inner), HYPEROPT):
                points = list(map(self._with_indices, points))
            elif derives_from(type(inner), AX):  # it has parameters that cannot vary
                points = [{**{"/".join(p): v for p, v in fixed}, **point} for point in points]
            inner._points_to_evaluate = points
            self._proposed_first = len(points)

    def _with_indices(self, parameters: dict[str, object]) -> dict[str, object]:
        """Return parameters with the indices of choices, as HyperOpt knows them.

        Ray's class converts them in a search space without levels only.
        """
        return {
            name: space.categories.index(value) if isinstance(space, Categorical) else value
            for name, value in parameters.items()
            for space in [self._domains[name]]
        }

    def _proposes_again(
        self, searcher: Searcher, metric: str | None, mode: str | None, config: dict[str, object]
    ) -> bool:
        """Whether a copy of a searcher proposes points of the earlier run."""
        points: list[EvaluatedPoint | UnfinishedPoint] = [*self.evaluated, *self._unfinished]
        try:
            twin = copy.deepcopy(searcher)
            _set_search_properties_backwards_compatible(
                twin.set_search_properties, metric, mode, config
            )
            for number in range(min(PROBES, len(points))):
                proposal = twin.suggest(f"probe_{number}")
                if not isinstance(proposal, Mapping):
                    return number > 0
                point = next((point for point in points if has_values(point, proposal)), None)
                if point is None:
                    return False
                if isinstance(point, EvaluatedPoint):
                    result = as_result(point)
                    twin.on_trial_complete(f"probe_{number}", result, result is None)
            return True
        except Exception as error:  # one that cannot be copied, or of the user's
            _log.debug("a copy of %s proposes nothing: %s", type(searcher).__name__, error)
            return False

    def answer(self, proposal: Mapping[str, object]) -> EvaluatedPoint | None:
        """Return the point that a proposal repeats, whose figure is its answer; None if none."""
        for point in self.evaluated:
            if has_values(point, proposal):
                if point in self._unheard:
                    self._unheard.remove(point)
                return point
        return None

    def append(self, point: EvaluatedPoint) -> None:
        """Add a point that was continued, and is done now."""
        self.evaluated.append(point)
        self._unheard.append(point)

    def add_to(self, searcher: Searcher, *, ends: bool = False) -> None:
        """Give a searcher the points that it has not heard of, if it takes them.

        Parameters
        ----------
        searcher
            The searcher, which has its search spaces.
        ends
            Whether it has proposed a new point. Until then, one that repeats its proposals is
            going to hear of the others.
        """
        self._repeats = self._repeats and not ends
        if self._repeats:
            return
        self._answer_first(searcher)
        for point in self._unheard:
            with contextlib.suppress(NotImplementedError):
                searcher.add_evaluated_point(
                    self._parameters(point), point.metric, error=point.metric is None
                )
        self._unheard = []

    def _answer_first(self, searcher: Searcher) -> None:
        """Answer the points that a searcher proposes first, all together.

        ZOOpt takes no more of them once it has a result.
        """
        _let_zoopt_change(searcher)
        answers: list[EvaluatedPoint | None] = []
        for number in range(self._proposed_first):
            proposal = searcher.suggest(f"earlier_{number}")
            if not isinstance(proposal, Mapping):
                break
            answers.append(self.answer(proposal))
        for number, point in enumerate(answers):
            tell(searcher, f"earlier_{number}", point)
        self._proposed_first = 0

    def _parameters(self, point: EvaluatedPoint) -> dict[str, object]:
        values = {f"values/{path}": value for path, value in point.values.items()}
        values["variant"] = point.base
        return {
            name: values[name] if name in values else space.sample(random_state=0)
            for name, space in self._domains.items()
        }


def _innermost(searcher: Searcher) -> Searcher:
    """Return the searcher that others are wrapped around."""
    inner = getattr(searcher, "searcher", None)
    return _innermost(inner) if isinstance(inner, Searcher) else searcher


def _let_zoopt_change(searcher: Searcher) -> None:
    """Let ZOOpt make new points of earlier ones: Ray gives them as tuples, which it changes."""
    parameter = getattr(getattr(_innermost(searcher), "optimizer", None), "_parameter", None)
    for sample in (parameter.get_init_samples() or ()) if parameter is not None else ():
        sample.set_x(list(sample.get_x()))


def release(searcher: Searcher) -> None:
    """Let a searcher propose more that waits, though no trial runs.

    ZOOpt begins to wait for its first results when it is asked for one point more. Where all of
    them are there by then, because trials run one at a time, it would wait for ever.
    """
    optimizer = getattr(_innermost(searcher), "optimizer", None)
    if optimizer is not None and getattr(optimizer, "semaphore", 1) == 0:
        parameter = getattr(optimizer, "_parameter", None)
        if parameter is not None and optimizer.complete_num >= parameter.get_train_size():
            optimizer.semaphore = 1
