"""What the driver remembers of the trials of a stage, and what Tune gets to pickle of it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError

from flambe.cluster.services.ray_service import NODE_STARTS
from flambe.errors import RunError
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.executors.tune.factory_settings import NodeStart, read_starts
from flambe.experiment.executors.tune.stage_run import StageCallback, StageRun
from flambe.experiment.executors.tune.trial_history import MAX_LOSSES, TrialHistory
from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.manifest import Manifest


def stage_run() -> StageRun:
    history = TrialHistory()  # it has threads and locks, which no pickle can hold
    task: Any = SimpleNamespace(storage=SimpleNamespace(checkpoints=lambda: None))
    listener: Any = None
    diagnosis: Any = None
    return StageRun(task, listener, (), history, diagnosis, print, None)


def test_pickles_of_tune_contain_nothing_of_a_stage_and_its_copy_is_itself() -> None:
    stage = stage_run()
    assert copy.deepcopy(stage) is stage
    assert copy.deepcopy(stage.trial_name).__self__ is stage  # type: ignore[attr-defined]
    for value in (stage.trial_name, StageCallback(stage)):
        pickle.loads(pickle.dumps(value))
    assert vars(pickle.loads(pickle.dumps(stage))) == {}


def test_a_host_may_be_lost_so_often_without_progress() -> None:
    history = TrialHistory()
    assert [history.next_attempt("v") for _ in range(3)] == [1, 2, 3]
    lost = [history.may_lose_host("v", step=3) for _ in range(MAX_LOSSES + 1)]
    assert lost == [True] * MAX_LOSSES + [False]
    assert history.may_lose_host("v", step=4), "it made progress"


def test_the_two_latest_checkpoints_of_a_trial_are_kept(tmp_path: Path) -> None:
    history = TrialHistory()
    for number in range(4):
        folder = tmp_path / "a" / "v" / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        latest = (str(folder), Manifest(number))
        history.prune(Checkpoints(str(tmp_path)), "trial", latest, Retention())
    history.upkeep.close()
    assert sorted(path.name for path in (tmp_path / "a" / "v").iterdir()) == [
        "checkpoint_2",
        "checkpoint_3",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"factory_1": 3}', '{"factory_1": {}}'])
def test_starts_of_nodes_that_cannot_be_read_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv(NODE_STARTS, raising=False)
    assert read_starts() == {}
    (tmp_path / "starts.json").write_text(text)
    monkeypatch.setenv(NODE_STARTS, str(tmp_path / "starts.json"))
    assert read_starts() == {}


def test_starts_of_nodes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"command": ["agent.py", "start"], "content": "{}", "log": 7, "more": None}
    (tmp_path / "starts.json").write_text(json.dumps({"factory_1": entry, "factory_2": "?"}))
    monkeypatch.setenv(NODE_STARTS, str(tmp_path / "starts.json"))
    (start,) = read_starts().values()
    assert start == NodeStart(["agent.py", "start"], "{}", "")
    assert start.lease_command == ["agent.py", "lease"]


def test_a_collector_that_does_not_answer_is_no_error_of_a_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get(*arguments: Any, **options: Any) -> None:
        raise GetTimeoutError("Get timed out: some object(s) not ready.")

    monkeypatch.setattr(ray, "get", get)
    handle = SimpleNamespace(set_task=SimpleNamespace(remote=lambda task: None))
    task: Any = None
    with pytest.raises(RunError, match="has not answered for 180 s: its host may be overloaded"):
        CollectorClient(handle).set_task(task)
