"""Population based training: members copy one another, and stay the variants that they are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from flambe.compile import Schema
from flambe.experiment.executors.tune.trial_history import TrialHistory
from flambe.experiment.retention import Retention
from flambe.experiment.search import population
from flambe.experiment.search.explored_values import explore
from flambe.experiment.storage.checkpoints import FINAL, Checkpoints
from flambe.experiment.storage.manifest import Manifest
from flambe.progress import Status
from tests.experiment.lab import Lab

PIPELINE = """
train: !pieces.Climber {rate: !tune.uniform [0.0, 1.0], steps: 12, record: RECORD}
read: !pieces.Fixed {value: !@ train.height}
"""
MORE = """
search: {train: {num_samples: 4}}
schedulers:
  train: !ray.PopulationBasedTraining
    time_attr: steps
    perturbation_interval: 3
    quantile_fraction: 0.5
"""


@pytest.mark.integration
def test_members_copy_better_ones_and_stay_variants(lab: Lab, tuned: Any) -> None:
    outcome = tuned(PIPELINE, more=MORE).fine()
    members = {entry.id: entry for entry in outcome.of("train")}
    assert len(members) == 4
    assert set(outcome.statuses("train")) == {Status.FINISHED}
    copies = [(entry, copy) for entry in members.values() for copy in entry.history]
    assert copies, "nobody copied anybody"
    for entry, copy in copies:
        source = members[copy["source"]]
        assert source.id != entry.id
        assert copy["step"] % 3 == 0
        assert set(copy["values"]) == {"train[rate]"}
        assert 0.0 <= copy["values"]["train[rate]"] <= 1.0
    for entry in members.values():
        # It is what it was: its values are those that it began with.
        assert entry.values == {"train[rate]": entry.choices["rate"]}
        assert entry.step == 12
        rates = [copy["values"]["train[rate]"] for copy in entry.history]
        assert entry.metric == pytest.approx(climbed(members, entry, 12))
        (reader,) = [v for v in outcome.of("read") if v.parents["train"] == entry.id]
        assert reader.metric == pytest.approx(entry.metric)
        built = [line for line in lab.records() if line.startswith("built ")]
        for rate in rates:  # it was built with the value that it explored
            assert f"built {rate:.6f}" in built
    again = tuned(resume=True).fine()
    assert {v.id: v.history for v in again.of("train")} == {
        v.id: v.history for v in members.values()
    }
    assert set(again.statuses("train")) == {Status.REUSED}


def climbed(members: Any, entry: Any, step: int) -> float:
    """Return how high a member is after a step: each step climbs by its rate of then."""

    def height(identity: str, step: int, copies: int) -> float:
        member = members[identity]
        history = member.history[:copies]
        if not history:
            return float(step * member.values["train[rate]"])
        last = history[-1]
        # What the source had copied when its state was taken: all up to that step.
        source = members[last["source"]]
        earlier = [copy for copy in source.history if copy["step"] < last["step"]]
        base = height(source.id, last["step"], len(earlier))
        return float(base + (step - last["step"]) * last["values"]["train[rate]"])

    return height(entry.id, step, len(entry.history))


# -- what is explored ---------------------------------------------------------------------------


def space(kind: str, *arguments: Any) -> Schema:
    return Schema(f"ray.tune.search.sample:{kind}", f"tune.{kind}", list(arguments))


def test_spaces_are_explored_within_their_bounds() -> None:
    real, whole = space("uniform", 0.1, 0.5)(), space("randint", 1, 9)()
    steps, choice = space("qrandint", 16, 64, 16)(), space("choice", ["a", "b"])()
    assert population.bounded(real, 0.6) == 0.5
    assert population.bounded(real, 0.2) == 0.2
    assert population.bounded(whole, 9.6) == 8
    assert isinstance(population.bounded(whole, 2.4), int)
    assert population.bounded(steps, 38.4) == 32
    assert population.bounded(steps, 76.8) == 64
    assert population.bounded(choice, "b") == "b"


def test_what_is_explored_is_named_as_in_the_table() -> None:
    paths = ["train[optimizer][lr]", "train[model][lr]", "train[rate]"]
    assert population.match_space("rate", paths) == "train[rate]"
    assert population.match_space("optimizer.lr", paths) == "train[optimizer][lr]"
    assert population.match_space("lr", paths) is None  # which one?
    assert population.match_space("train[model][lr]", paths) == "train[model][lr]"
    spaces = {"train[rate]": space("uniform", 0.0, 1.0), "train[act]": space("choice", ["a", "b"])}
    every: Any = population.explored_arguments(population.MUTATIONS, None, spaces)
    assert set(every) == set(spaces)
    assert every["train[act]"] == ["a", "b"]  # PBT would multiply what "choice" chooses from
    some: Any = population.explored_arguments(population.MUTATIONS, {"rate": [1, 2]}, spaces)
    assert some == {"train[rate]": [1, 2]}
    bounds = population.explored_arguments(
        population.BOUNDS, None, {"train[rate]": spaces["train[rate]"]}
    )
    assert bounds == {"train[rate]": [0.0, 1.0]}
    (finding,) = population.explored_findings(population.BOUNDS, None, spaces, "ray.PB2")
    assert "train[act] is not a range" in finding[1]


def test_a_learning_rate_is_explored_where_a_state_brings_back_another() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    source = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(source, step_size=1, gamma=0.5)
    source.step()
    schedule.step()
    optimizer = torch.optim.SGD([parameter], lr=0.2, momentum=0.9)
    own = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.load_state_dict(source.state_dict())
    own.load_state_dict(schedule.state_dict())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    config = Schema(
        "x:Trainer",
        "Trainer",
        [],
        {"optimizer": Schema("torch.optim:SGD", "torch.SGD", [], {"lr": 0.2, "momentum": 0.9})},
    )
    built: Any = {
        ("train",): object(),
        ("train", "optimizer"): optimizer,
        ("train", "schedule"): own,
    }
    explore(built, config, "train", {"train[optimizer][lr]": 0.1}, {"train[optimizer][lr]": 0.2})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)  # halved once, as the source's
    assert own.base_lrs == [pytest.approx(0.2)]
    optimizer.step()
    own.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


# -- checkpoints that others continue from ------------------------------------------------------


def test_a_checkpoint_is_kept_until_the_copy_has_one_of_its_own(tmp_path: Path) -> None:
    history, checkpoints = TrialHistory(), Checkpoints(str(tmp_path))
    folder = tmp_path / "a" / "source"

    def write(number: int) -> str:
        path = folder / f"checkpoint_{number}"
        path.mkdir(parents=True)
        (path / "manifest.json").write_text(f'{{"step": {number}, "files": {{}}}}')
        history.prune(checkpoints, "source", (str(path), Manifest(number)), Retention())
        return str(path)

    held = write(1)
    history.hold(held, "copy")
    for number in range(2, 6):
        write(number)
    settle = functools.partial(
        history.upkeep.settle, checkpoints, str(folder), FINAL, Retention(), lambda size: None
    )
    history.when_released(str(folder), settle)
    history.upkeep.wait_settled()
    assert Path(held).is_dir()
    assert not (folder / FINAL).exists()
    history.release("copy")
    history.upkeep.wait_settled()
    history.upkeep.close()
    assert [path.name for path in folder.iterdir()] == [FINAL]
