"""What a searcher is asked for and told: room for trials, points of before, and its end."""

from __future__ import annotations

from typing import Any

import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from flambe.experiment.executors.tune.algorithms.resumed_searcher import (
    MOST_REFUSALS,
    StageSearcher,
    search_algorithm,
)
from flambe.experiment.search.stage_search import (
    EvaluatedPoint,
    SearcherOptions,
    UnfinishedPoint,
)

SPACE = {"train[x]": tune.uniform(0.0, 1.0)}
CONFIG: dict[str, Any] = {"stage": "train", "variant": "base", "values": SPACE}


class Listing(Searcher):  # type: ignore[misc]
    """Proposes one number after another, and remembers what it is told."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(metric="metric", mode="max")
        self.values = list(values)
        self.told: list[tuple[float, float | None, bool]] = []
        self.proposed: dict[str, float] = {}

    def set_search_properties(self, *arguments: Any, **options: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        if not self.values:
            return None
        self.proposed[trial_id] = value = self.values.pop(0)
        return {"values": {"train[x]": value}}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.told.append((self.proposed[trial_id], result and result["metric"], error))


def searcher(inner: Searcher, slots: int = 2, **options: Any) -> StageSearcher:
    found = search_algorithm(SearcherOptions(inner, SPACE, 9, **options), lambda: slots)
    assert isinstance(found, StageSearcher)
    assert found.set_search_properties("metric", "max", CONFIG)
    return found


def test_as_many_trials_as_fit_and_no_more_than_the_user_says() -> None:
    free = searcher(Listing([0.1, 0.2, 0.3, 0.4]))
    assert free.max_concurrent == 2
    assert [free.suggest(name) is not None for name in "abc"] == [True, True, False]
    free.on_trial_complete("a", {"metric": 1.0})
    assert free.suggest("c") is not None
    assert searcher(Listing([]), max_concurrent=7).max_concurrent == 7
    written = ConcurrencyLimiter(Listing([]), max_concurrent=3)
    assert searcher(written, slots=8).max_concurrent == 3
    assert written.max_concurrent == 3


def test_points_of_before_are_answered_and_unfinished_ones_continue_first() -> None:
    inner = Listing([0.1, 0.2, 0.3])
    before = [EvaluatedPoint("base", {"train[x]": 0.1}, 5.0)]
    unfinished = [UnfinishedPoint("v7", "base", {"train[x]": 0.7})]
    found = searcher(inner, slots=4, evaluated=before, unfinished=unfinished)
    first: Any = found.suggest("a")
    assert first == {"recorded": "v7", "variant": "base", "values": {"train[x]": 0.7}}
    second: Any = found.suggest("b")
    assert second["values"] == {"train[x]": 0.2}
    assert inner.told == [(0.1, 5.0, False)]
    found.on_trial_result("a", {"metric": 1.0})
    found.on_trial_complete("a", {"metric": 2.0})
    found.on_trial_complete("b", None, error=True)
    assert inner.told[1:] == [(0.2, None, True)]
    assert found.live_trials == set()
    # What was continued is known as well, if the searcher proposes it.
    inner.values = [0.7, 0.8]
    third: Any = found.suggest("c")
    assert third["values"] == {"train[x]": 0.8}
    assert inner.told[-1] == (0.7, 2.0, False)


def test_a_searcher_that_waits_for_nothing_is_at_its_end() -> None:
    found = searcher(Listing([0.1]))
    assert found.suggest("a") is not None
    for number in range(MOST_REFUSALS + 5):
        assert found.suggest(f"b{number}") is None  # it may wait for the result of the first
    found.on_trial_complete("a", {"metric": 1.0})
    answers = [found.suggest(f"c{number}") for number in range(MOST_REFUSALS + 1)]
    assert answers[-1] == Searcher.FINISHED
    assert set(answers[:-1]) == {None}


@pytest.mark.parametrize("name", ["OptunaSearch", "HyperOptSearch", "BayesOptSearch"])
def test_searchers_of_packages_propose_and_continue(name: str) -> None:
    module = {"OptunaSearch": "optuna", "HyperOptSearch": "hyperopt", "BayesOptSearch": "bayes_opt"}
    pytest.importorskip(module[name])
    from flambe.compile.registry import CLASSES

    folder = {"OptunaSearch": "optuna", "HyperOptSearch": "hyperopt", "BayesOptSearch": "bayesopt"}
    target: Any = CLASSES.import_target(f"ray.tune.search.{folder[name]}:{name}")
    points = []
    found = searcher(target(), slots=1)
    for number in range(6):
        proposal: Any = found.suggest(str(number))
        points.append(EvaluatedPoint("base", proposal["values"], proposal["values"]["train[x]"]))
        found.on_trial_complete(str(number), {"metric": proposal["values"]["train[x]"]})
    again = searcher(target(), slots=1, evaluated=points)
    proposal = again.suggest("x")
    assert proposal["values"] not in [point.values for point in points]
