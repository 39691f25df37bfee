"""What a searcher is asked for and told: room for trials, points of before, and its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher

from flambe.experiment.executors.tune.algorithms.ranking import RankedSearcher
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


def test_one_that_proposes_the_same_again_continues_as_if_undisturbed() -> None:
    """What is unfinished runs beside; it is proposed again, and runs once."""
    inner = Listing([0.1, 0.2, 0.3, 0.4, 0.5])
    before = [EvaluatedPoint("base", {"train[x]": x}, 10 * x) for x in (0.1, 0.3)]
    unfinished = [UnfinishedPoint("v2", "base", {"train[x]": 0.2})]
    found = searcher(inner, slots=3, evaluated=before, unfinished=unfinished)
    assert found.suggest("a") == {"recorded": "v2", "variant": "base", "values": {"train[x]": 0.2}}
    new: Any = found.suggest("b")
    assert new["values"] == {"train[x]": 0.4}
    assert inner.told == [(0.1, 1.0, False), (0.3, 3.0, False)]
    found.on_trial_complete("a", {"metric": 2.0})
    assert inner.told[2:] == [(0.2, 2.0, False)]  # as the result of what it proposed itself
    found.on_trial_complete("b", {"metric": 4.0})
    assert inner.told[3:] == [(0.4, 4.0, False)]
    assert found.live_trials == set()
    assert found.num_unfinished_live_trials == 0


NUMBERS = {
    "train[x]": tune.uniform(0.0, 1.0),
    "train[y]": tune.uniform(1.0, 9.0),
}
OPTIONS = {"train[c]": tune.choice(["a", "b"]), "train[n]": tune.randint(1, 50)}


class Case:
    """A searcher of a package: its module, what makes it the same each time, and its spaces."""

    def __init__(
        self, package: str, module: str, repeated: dict[str, int] | None, **plain: Any
    ) -> None:
        self.package = package
        self.module = module
        self.repeated = repeated
        self.plain = plain
        self.space = NUMBERS if package == "bayes_opt" else NUMBERS | OPTIONS

    def make(self, *, repeated: bool = False, **options: Any) -> StageSearcher:
        pytest.importorskip(self.package)
        from flambe.compile.registry import CLASSES

        target: Any = CLASSES.import_target(f"ray.tune.search.{self.module}")
        keywords = dict(self.plain) | (self.repeated or {} if repeated else {})
        if self.package == "nevergrad":
            nevergrad = pytest.importorskip("nevergrad")
            keywords["optimizer"] = nevergrad.optimizers.registry["NGOpt"]
        made = search_algorithm(
            SearcherOptions(target(**keywords), self.space, 30, **options), lambda: 1
        )
        assert isinstance(made, StageSearcher)
        config = {**CONFIG, "values": self.space}
        assert made.set_search_properties("metric", "max", config)
        return made


CASES = {
    "ax": Case("ax", "ax.ax_search:AxSearch", None),
    "bayesopt": Case("bayes_opt", "bayesopt.bayesopt_search:BayesOptSearch", {"random_state": 3}),
    "bohb": Case("hpbandster", "bohb.bohb_search:TuneBOHB", None),
    "hyperopt": Case(
        "hyperopt", "hyperopt.hyperopt_search:HyperOptSearch", {"random_state_seed": 1}
    ),
    "nevergrad": Case(
        "nevergrad",
        "nevergrad.nevergrad_search:NevergradSearch",
        None,
        optimizer_kwargs={"budget": 30},
    ),
    "optuna": Case("optuna", "optuna.optuna_search:OptunaSearch", {"seed": 1}),
    "zoopt": Case("zoopt", "zoopt.zoopt_search:ZOOptSearch", None, budget=30),
}


def asked(made: StageSearcher, number: int) -> list[EvaluatedPoint]:
    """Ask for so many points, one after another, and answer each."""
    points = []
    for _ in range(number):
        name = f"trial{len(made._inner_ids)}"
        # ZOOpt is asked once more, when it has proposed its first points.
        proposal: Any = made.suggest(name) or made.suggest(name)
        assert isinstance(proposal, dict), proposal
        figure = -abs(proposal["values"]["train[x]"] - 0.5)
        made.on_trial_complete(name, {"metric": figure})
        points.append(EvaluatedPoint("base", proposal["values"], figure, 3))
    return points


@pytest.mark.filterwarnings("ignore")  # of the packages
@pytest.mark.parametrize("name", CASES)
def test_searchers_of_packages_know_the_points_of_before(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    np.random.seed(1)  # ZOOpt has no seed, and ends where it finds nothing new near good points
    before = asked(case.make(), 6)
    answers: list[object] = []
    complete = RankedSearcher.on_trial_complete

    def on_trial_complete(
        self: RankedSearcher, trial_id: str, result: Any = None, error: bool = False
    ) -> None:
        complete(self, trial_id, result, error)
        if result is not None and not trial_id.startswith("probe"):
            answers.append(result["metric"])

    monkeypatch.setattr(RankedSearcher, "on_trial_complete", on_trial_complete)
    again = case.make(evaluated=before)
    if name == "optuna":
        inner: Any = again.searcher.searcher
        answers += [trial.value for trial in inner._ot_study.trials]
    new = asked(again, 3)
    # It proposed them, or was told. ZOOpt takes as many as it would have begun with at random.
    unknown = {point.metric for point in before} - set(answers)
    assert len(unknown) <= (2 if name == "zoopt" else 0)
    values = [point.values for point in before]
    assert all(point.values not in values for point in new)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.repeated])
def test_searchers_with_a_seed_propose_what_they_would_have(name: str) -> None:
    """Past their random draws too (Optuna's and BayesOpt's first 10)."""
    case = CASES[name]
    undisturbed = asked(case.make(repeated=True), 14)
    for done in (1, 5, 12):
        again = case.make(repeated=True, evaluated=undisturbed[:done])
        assert asked(again, 14 - done) == undisturbed[done:], done
