"""Schedulers that get the results of an earlier run again decide as if it had not been interrupted."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from flambe.experiment.search.history import EarlierTrial, StepResult, read_results

STEPS = 9


class Trial:
    """As much of a trial of Tune as schedulers look at."""

    def __init__(self, name: str) -> None:
        self.trial_id = name
        self.variant = name
        self.status = "PENDING"
        self.is_saving = False

    def is_finished(self) -> bool:
        return self.status == "TERMINATED"


class Tune:
    """Gives results of trials to a scheduler, one step of one trial after another."""

    def __init__(self, scheduler: Any, figures: dict[str, list[float]]) -> None:
        self.scheduler = scheduler
        self.figures = figures
        self.trials: dict[str, Trial] = {}
        self.steps = dict.fromkeys(figures, 0)
        self.reports: list[tuple[str, int, float]] = []
        self.decisions: list[tuple[str, int, str]] = []

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.is_finished()]

    def stop_trial(self, trial: Trial) -> None:
        if trial.status in ("PENDING", "PAUSED"):
            self.scheduler.on_trial_remove(self, trial)
        trial.status = "TERMINATED"

    def add(self, name: str) -> None:
        self.trials[name] = Trial(name)
        self.scheduler.on_trial_add(self, self.trials[name])

    def step(self, name: str) -> None:
        trial = self.trials[name]
        if trial.is_finished():
            return
        trial.status = "RUNNING"
        self.steps[name] += 1
        step = self.steps[name]
        metric = self.figures[name][step - 1]
        result = {
            "training_iteration": step,
            "steps": step,
            "time_total_s": float(step),
            "metric": metric,
        }
        self.reports.append((name, step, metric))
        decision = self.scheduler.on_trial_result(self, trial, result)
        # Whether one is paused depends on which others wait for a slot.
        self.decisions.append((name, step, "STOP" if decision == "STOP" else "CONTINUE"))
        if decision == "STOP" or step == STEPS:
            self.scheduler.on_trial_complete(self, trial, result)
            trial.status = "TERMINATED"
        elif decision == "PAUSE":
            trial.status = "PAUSED"


def asha() -> Any:
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(max_t=STEPS, grace_period=1, reduction_factor=2)


def median() -> Any:
    from ray.tune.schedulers import MedianStoppingRule

    return MedianStoppingRule(grace_period=2.0, min_samples_required=2)


def ranked(scheduler: Any) -> Any:
    from flambe.experiment.executors.tune.algorithms.ranking import ranked_scheduler

    result = ranked_scheduler(scheduler)
    result.set_search_properties("metric", "max")
    return result


def resumed(scheduler: Any, before: Tune) -> tuple[Any, set[str]]:
    from flambe.experiment.executors.tune.algorithms.resumed_scheduler import (
        ResumedScheduler,
        replay,
    )

    earlier = [
        EarlierTrial(
            name,
            tuple(
                StepResult(step, metric, float(step), order)
                for order, (reporter, step, metric) in enumerate(before.reports)
                if reporter == name
            ),
            trial.is_finished(),
        )
        for name, trial in before.trials.items()
    ]
    inner, stand_ins, stopped = replay(ranked(scheduler), earlier)
    return ResumedScheduler(inner, stand_ins, lambda trial: trial.variant), stopped


@pytest.mark.parametrize("make", [asha, median])
@pytest.mark.parametrize("seed", range(6))
def test_it_decides_as_if_nothing_had_been_interrupted(make: Any, seed: int) -> None:
    draw = random.Random(seed)
    names = [f"v{n}" for n in range(8)]
    figures = {name: [draw.random() + step / 9 for step in range(STEPS)] for name in names}
    order = [draw.choice(names) for _ in range(150)]
    undisturbed = Tune(ranked(make()), figures)
    for name in names:
        undisturbed.add(name)
    for name in order:
        undisturbed.step(name)
    assert any(decision == "STOP" for _, step, decision in undisturbed.decisions if step < STEPS)
    for cut in range(0, len(order), 10):
        before = Tune(ranked(make()), figures)
        for name in names:
            before.add(name)
        for name in order[:cut]:
            before.step(name)
        scheduler, stopped = resumed(make(), before)
        assert not stopped
        after = Tune(scheduler, figures)
        after.steps = dict(before.steps)
        for name, trial in before.trials.items():
            if trial.is_finished():
                after.trials[name] = trial
            else:
                after.add(name)
        for name in order[cut:]:
            after.step(name)
        assert before.decisions + after.decisions == undisturbed.decisions


def test_what_was_stopped_just_before_the_end_is_not_continued() -> None:
    """The run was killed when the result was recorded, and that it was the last was not."""
    figures = {name: [value] * STEPS for name, value in (("a", 3.0), ("b", 1.0))}
    before = Tune(ranked(asha()), figures)
    for name in figures:
        before.add(name)
        before.step(name)
    assert before.decisions[-1] == ("b", 1, "STOP")
    before.trials["b"].status = "RUNNING"
    _, stopped = resumed(asha(), before)
    assert stopped == {"b"}


def test_hyperband_continues_its_brackets() -> None:
    from ray.tune.schedulers import HyperBandScheduler

    def make() -> Any:
        return HyperBandScheduler(max_t=STEPS, reduction_factor=3)

    figures = {f"v{n}": [float(n)] * STEPS for n in range(6)}
    before = Tune(ranked(make()), figures)
    for name in figures:
        before.add(name)
    for _ in range(2):
        for name in list(figures)[3:]:  # the bracket that halves after 3 steps
            before.step(name)
    scheduler, stopped = resumed(make(), before)
    assert not stopped
    after = Tune(scheduler, figures)
    after.steps = dict(before.steps)
    for name in figures:
        after.add(name)
    inner = scheduler.scheduler.scheduler
    brackets = [bracket for band in inner._hyperbands for bracket in band if bracket is not None]
    held = {trial for bracket in brackets for trial in bracket._live_trials}
    assert held == set(after.trials.values())  # each once, and none of before
    for name in list(figures)[3:]:
        after.step(name)
    stopped_now = [name for name, trial in after.trials.items() if trial.is_finished()]
    assert stopped_now == ["v3"]  # of three, two go on: ceil(5 / 3)


def test_a_scheduler_that_refuses_results_starts_without_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ray.tune.schedulers import FIFOScheduler

    class Refusing(FIFOScheduler):  # type: ignore[misc]
        def on_trial_result(self, *arguments: Any) -> str:
            raise RuntimeError("not again")

    before = Tune(ranked(asha()), {"a": [1.0] * STEPS})
    before.add("a")
    before.step("a")
    scheduler, stopped = resumed(Refusing(), before)
    assert not stopped
    assert "starts without them: not again" in caplog.text
    scheduler.on_trial_add(SimpleNamespace(), Trial("a"))


def line(identity: str, step: int, metric: float | None, **more: Any) -> dict[str, Any]:
    return {"id": identity, "step": step, "metric": metric, **more}


def test_a_step_that_was_done_twice_counts_once() -> None:
    journal = [
        {"id": "a", "stage": "train", "name": "a"},
        {"id": "b", "stage": "train", "name": "b"},
        line("a", 1, 0.1, seconds=1.0),
        line("b", 1, 0.5),
        line("a", 2, 0.2),
        {"id": "a", "status": "interrupted"},
        line("a", 1, 0.1),  # what its checkpoint holds, when it is resumed
        line("a", 2, 0.3, seconds=2.5),
        line("b", 0, None),
        {"id": "c", "step": 1, "metric": 1.0},
    ]
    results = read_results(journal)
    assert set(results) == {"a", "b"}
    assert [(r.step, r.metric, r.seconds) for r in results["a"]] == [(1, 0.1, 1.0), (2, 0.3, 2.5)]
    assert results["a"][1].order == 4
    trial = EarlierTrial("a", results["a"], done=False).until(1)
    assert [r.step for r in trial.results] == [1]


def test_a_figure_that_is_not_finite_is_read_as_it_was() -> None:
    from flambe.progress.lines import parse_json
    from flambe.progress.state import change_line

    lines: list[Any] = [
        {"id": "a", "stage": "train", "name": "a"},
        parse_json(change_line({"id": "a", "step": 1, "metric": math.nan})),
    ]
    (result,) = read_results(lines)["a"]
    assert result.metric is not None
    assert math.isnan(result.metric)
