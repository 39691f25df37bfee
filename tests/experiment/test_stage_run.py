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
from flambe.experiment.executors.failures import Failure
from flambe.experiment.executors.tune.collector_client import CollectorClient
from flambe.experiment.executors.tune.factory_settings import NodeStart, read_starts
from flambe.experiment.executors.tune.stage_run import StageCallback, StageRun
from flambe.experiment.executors.tune.trial import ATTEMPT, RECORDED
from flambe.experiment.executors.tune.trial_history import MAX_LOSSES, TrialHistory
from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.manifest import Manifest
from flambe.experiment.variants.expansion import Variant


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


class Trials:
    """A listener, and a source of trials that failed."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, bool]] = []
        self.halted: list[str] = []
        self.stored: list[int] = []

    def on_failure(self, variant: Variant, error: None, text: str, final: bool) -> None:
        self.failures.append((text, final))

    def on_stored(self, variant: Variant, size: int) -> None:
        self.stored.append(size)

    def stage(self, failure: Failure, *, head_answers: bool | None) -> StageRun:
        """Return a stage of a run on a cluster, or on this machine: head_answers is None."""
        variant = Variant("v", "a", "v", None)
        checkpoints = SimpleNamespace(
            folder=lambda stage, name: f"{stage}/{name}",
            whole=lambda folder: {"checkpoint_1": SimpleNamespace(size=7)},
        )
        storage = SimpleNamespace(checkpoints=lambda: checkpoints)
        task: Any = SimpleNamespace(storage=storage, stage="a", variants={"a": {"v": variant}})
        diagnosis: Any = SimpleNamespace(failure_of=lambda variant, file: failure)
        head = SimpleNamespace(answers=lambda: head_answers)
        nodes: Any = SimpleNamespace(head=head) if head_answers is not None else None
        listener: Any = self
        history = TrialHistory()
        return StageRun(task, listener, (), history, diagnosis, self.halted.append, nodes)

    @staticmethod
    def failed() -> Any:
        trial = type("Trial", (), {"should_recover": lambda self: False})()
        trial.trial_id, trial.error_file, trial.last_result = "t", None, {}
        trial.config = {RECORDED: "v", ATTEMPT: 1}
        return trial


LOST = Failure(None, "The actor died because its node has died.", host_lost=True)
ENDED = Failure(None, "its process was ended by a signal: SIGKILL")


@pytest.mark.parametrize("failure", [LOST, ENDED])
def test_a_run_that_ends_with_ray_has_no_failed_variants(failure: Failure) -> None:
    """What is cut off when the orchestrator ends all its processes is continued, and no failure."""
    trials = Trials()
    stage, trial = trials.stage(failure, head_answers=False), trials.failed()
    assert not stage.should_retry(trial)
    stage.fail(trial, final=True)
    assert trials.failures == []


def test_a_run_on_this_machine_ends_when_its_ray_does() -> None:
    trials = Trials()
    stage, trial = trials.stage(LOST, head_answers=None), trials.failed()
    assert not stage.should_retry(trial)
    stage.fail(trial, final=True)
    assert trials.failures == []
    assert "Ray on this machine ended" in trials.halted[0]


@pytest.mark.parametrize("head_answers", [None, True])
def test_a_process_that_was_killed_alone_failed(head_answers: bool | None) -> None:
    trials = Trials()
    stage, trial = trials.stage(ENDED, head_answers=head_answers), trials.failed()
    stage.fail(trial, final=True)
    stage._history.upkeep.wait_settled()
    assert trials.failures == [(ENDED.text, True)]
    assert trials.halted == []
    assert trials.stored == [7]
