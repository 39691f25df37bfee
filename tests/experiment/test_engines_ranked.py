"""What searchers and schedulers of Ray Tune make of figures that are NaN or missing."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

NAN = math.nan
# Figures of variants by step: of one that is good, that is bad, not defined, and that has none.
GOOD, BAD = "[1.0, 2.0, 3.0, 4.0]", "[0.5, 0.6, 0.7, 0.8]"
NONE = "[.nan, .nan, .nan, .nan], [null, null, null, null]"
# HyperBand runs the first three to their ends, and halves the next three after two steps.
BANDS = f"[9, 9, 9, 9], [8, 8, 8, 8], [7, 7, 7, 7], {NONE}, {GOOD}"
FIGURES = f"!g [{GOOD}, {BAD}, {NONE}]"


def result(step: int, metric: float | None) -> dict[str, Any]:
    told = {"training_iteration": step, "time_total_s": float(step), "steps": step}
    return told if metric is None else {**told, "metric": metric}


class Trial:
    """As much of a trial of Tune as schedulers look at."""

    status = "RUNNING"

    def __init__(self, name: str) -> None:
        self.trial_id = name


class Bench:
    """Gives results of trials to a scheduler, as Tune does."""

    def __init__(self, scheduler: Any) -> None:
        from flambe.experiment.executors.tune.algorithms.ranking import ranked_scheduler

        self.scheduler = ranked_scheduler(scheduler)
        assert self.scheduler.set_search_properties("metric", "max")
        self.trials: dict[str, Any] = {}
        self.controller = SimpleNamespace(get_live_trials=lambda: ())

    def tell(self, name: str, step: int, metric: float | None) -> str:
        if name not in self.trials:
            self.trials[name] = Trial(name)
            self.scheduler.on_trial_add(self.controller, self.trials[name])
        told = result(step, metric)
        decision = self.scheduler.on_trial_result(self.controller, self.trials[name], told)
        assert ("metric" in told) is (metric is not None)  # it is what it was
        return str(decision)

    def end(self, name: str, step: int, metric: float | None) -> None:
        self.scheduler.on_trial_complete(self.controller, self.trials[name], result(step, metric))


@pytest.mark.parametrize("figure", [NAN, None])
def test_asha_stops_what_has_no_figure_before_what_has_one(figure: float | None) -> None:
    from ray.tune.schedulers import ASHAScheduler

    bench = Bench(ASHAScheduler(max_t=9, grace_period=1, reduction_factor=2))
    assert bench.tell("first", 1, figure) == "CONTINUE"  # nothing to compare it with
    assert bench.tell("good", 1, 2.0) == "CONTINUE"
    assert bench.tell("bad", 1, 1.0) == "CONTINUE"
    assert bench.tell("none", 1, figure) == "STOP"
    assert bench.tell("worse", 1, -5.0) == "CONTINUE"  # it is better than half of them
    assert bench.tell("worst", 1, -9.0) == "STOP"
    assert bench.tell("first", 9, figure) == "STOP"  # max_t holds for it as well
    bench.end("good", 3, figure)


@pytest.mark.parametrize("figure", [NAN, None])
def test_the_median_rule_compares_figures_only(figure: float | None) -> None:
    from ray.tune.schedulers import MedianStoppingRule

    bench = Bench(MedianStoppingRule(grace_period=2.0, min_samples_required=2))
    for name, value in (("a", 2.0), ("b", 3.0), ("c", 4.0)):
        assert bench.tell(name, 1, figure) == "CONTINUE"  # it is not measured yet
        assert bench.tell(name, 2, value) == "CONTINUE"
        bench.end(name, 3, figure)
    assert bench.tell("none", 1, figure) == "CONTINUE"
    assert bench.tell("none", 2, figure) == "STOP"
    assert bench.tell("good", 2, 5.0) == "CONTINUE"
    assert bench.tell("good", 3, figure) == "CONTINUE"  # its best stays what it was
    assert bench.tell("bad", 2, 1.0) == "STOP"


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of Repeater
@pytest.mark.parametrize("figure", [NAN, None])
@pytest.mark.parametrize("keywords", [{}, {"metric": "metric", "mode": "max"}, {"mode": "max"}])
def test_searchers_are_told_that_the_point_failed(
    figure: float | None, keywords: dict[str, str]
) -> None:
    pytest.importorskip("optuna")
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter, Repeater
    from ray.tune.search.optuna import OptunaSearch

    from flambe.experiment.executors.tune.algorithms.ranking import ranked_searcher

    inner = OptunaSearch(seed=1, **keywords)
    searcher = ranked_searcher(ConcurrencyLimiter(Repeater(inner, repeat=2), max_concurrent=4))
    assert searcher.set_search_properties("metric", "max", {"x": tune.uniform(0.0, 1.0)})
    for name in ("a1", "a2", "b1", "b2", "c1", "c2"):
        assert 0.0 <= searcher.suggest(name)["x"] <= 1.0
        searcher.on_trial_result(name, result(1, figure))
        searcher.on_trial_complete(name, result(2, 0.5 if name in ("b1", "c1", "c2") else figure))
    trials = inner._ot_study.trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.value for trial in trials] == [None, 0.5, 0.5]
    assert inner._ot_study.direction.name == "MAXIMIZE"
