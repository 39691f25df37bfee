"""The state of a run survives what happens to files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from flambe.progress import (
    RunFolder,
    RunState,
    StageState,
    Status,
    change_line,
    steady_time,
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_what_is_written_is_read(folder: RunFolder) -> None:
    state = RunState("a", status=Status.RUNNING, stages=[StageState("train", links=["model"])])
    folder.write_state(state)
    assert folder.read_state() == state


def test_a_truncated_state_gives_the_one_before(folder: RunFolder) -> None:
    folder.write_state(RunState("a", status=Status.RUNNING))
    folder.write_state(RunState("a", status=Status.FINISHED))
    folder.state.write_text(folder.state.read_text()[:40])
    state = folder.read_state()
    assert state is not None
    assert state.status is Status.RUNNING
    folder.previous_state.write_text("")
    assert folder.read_state() is None


def test_what_a_newer_version_adds_is_passed_over(folder: RunFolder) -> None:
    folder.write_state(RunState("a"))
    values = json.loads(folder.state.read_text())
    folder.state.write_text(json.dumps({**values, "later": 1}))
    state = folder.read_state()
    assert state is not None
    assert state.name == "a"


def test_the_journal_folds_and_passes_over_what_is_broken(folder: RunFolder) -> None:
    lines: list[dict[str, Any]] = [
        {"id": "1", "stage": "s", "name": "a", "metric": None},
        {"id": "1", "status": Status.RUNNING, "metric": float("nan")},
        {"id": "2", "stage": "s", "name": "b"},
        {"id": "1", "status": Status.FINISHED, "metric": 0.5, "later": True},
        {"id": "3", "status": Status.FINISHED},
        {"id": "2", "gone": True},
    ]
    text = "".join(map(change_line, lines)) + "not json\n[1]\n" + '{"id": "1", "status": "fai'
    folder.variants.write_text(text)
    (variant,) = folder.read_variants().values()
    assert (variant.name, variant.status, variant.metric) == ("a", Status.FINISHED, 0.5)


def test_setting_the_clock_makes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, wall = steady_time(), time.time()
    assert abs(begun - wall) < 60
    monkeypatch.setattr(time, "time", lambda: wall + 3600)
    assert 0 <= steady_time() - begun < 60
