"""Searches with the packages that Ray's searchers and schedulers need: extras of flambe."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from flambe.progress import Status
from tests.experiment.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.long]

NUMBERS = "!pieces.Climber {rate: !tune.uniform [0.0, 1.0], steps: 3}"
SEARCHERS = {
    "bayes_opt": "!ray.BayesOptSearch {random_state: 3}",
    "hyperopt": "!ray.HyperOptSearch {random_state_seed: 1}",
    "nevergrad": "!ray.NevergradSearch {optimizer: OnePlusOne}",
    "optuna": "!ray.OptunaSearch {seed: 1}",
    "zoopt": "!ray.ZOOptSearch {parallel_num: 1}",
}


def test_each_searcher_tries_its_points_and_is_extended(lab: Lab, tuned: Any) -> None:
    """Side by side, as stages of one experiment; then each tries two more."""
    stages = {name: tag for name, tag in SEARCHERS.items() if importlib.util.find_spec(name)}
    if not stages:
        pytest.skip("none of the packages is installed")
    pipeline = "\n".join(f"{name}: {NUMBERS}" for name in stages)

    def search(samples: int) -> str:
        options = f"num_samples: {samples}, max_concurrent_trials: 1"
        lines = [f"  {name}: {{searcher: {tag}, {options}}}" for name, tag in stages.items()]
        return "\n".join(["search:", *lines])

    first = tuned(pipeline, more=search(4)).fine()
    tried = {name: {entry.id: entry.values for entry in first.of(name)} for name in stages}
    again = tuned(pipeline, more=search(6), resume=True).fine()
    for name, before in tried.items():
        entries = again.of(name)
        assert len(before) == 4 or name == "zoopt", name
        assert len(entries) == len({str(entry.values) for entry in entries}), name
        # ZOOpt ends where it finds nothing new near good points.
        assert len(entries) == 6 or name == "zoopt", name
        reused = [entry for entry in entries if entry.status is Status.REUSED]
        assert {entry.id: entry.values for entry in reused} == before, name
        for entry in entries:
            assert 0.0 <= entry.values[f"{name}[rate]"] <= 1.0
            assert entry.metric == pytest.approx(3 * entry.values[f"{name}[rate]"])


@pytest.mark.filterwarnings("ignore")  # of GPy
def test_pb2_explores_within_the_bounds_of_the_spaces(lab: Lab, tuned: Any) -> None:
    pytest.importorskip("GPy")
    space = "!tune.uniform [0.2, 0.9]"
    more = (
        "search: {train: {num_samples: 4}}\n"
        "schedulers: {train: !ray.PB2 {time_attr: steps, perturbation_interval: 3, "
        "quantile_fraction: 0.5}}"
    )
    outcome = tuned(f"train: !pieces.Climber {{rate: {space}, steps: 12}}", more=more).fine()
    members = outcome.of("train")
    assert len(members) == 4
    copies = [copy for entry in members for copy in entry.history]
    assert copies, "nobody copied anybody"
    for copy in copies:
        assert copy["source"] in {entry.id for entry in members}
        assert 0.2 <= copy["values"]["train[rate]"] <= 0.9
    assert all(entry.step == 12 for entry in members)
