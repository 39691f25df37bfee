"""A state that cannot be read: nothing is started beside what runs, and no end is mixed up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flambe.remote import agent_client
from flambe.remote.agent import processes, statuses, supervisor
from flambe.remote.agent.protocol import StopRequest
from tests.remote.test_agent import (
    ROOT,
    acquire,
    has_ended,
    place,
    start,
    status,
    stop,
    until,
)

pytestmark = pytest.mark.integration

__all__ = ["place"]  # a fixture

DAMAGES = {
    "the state": ["status.json"],
    "the state, and the one before": ["status.json", "status.json.last"],
    "all": ["status.json", "status.json.last", "supervisor.lock"],
}


def folder(place: Path) -> Path:
    return place / ROOT / "runs" / "job"


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("content", ["", '{"state": "run', "[]", '{"state": "ended"}'])
def test_nothing_is_started_beside_what_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, what: str, content: str
) -> None:
    monkeypatch.setattr(supervisor, "HEARTBEAT", 1e6)
    first = start(place, "sleep 1000")
    for name in DAMAGES[what]:
        (folder(place) / name).write_text(content)
    found = status(place)
    assert (found.state, found.pid, found.marker) == (
        "running",
        first.pid,
        first.marker,
    )
    assert found.about["user"] == ("ann" if what != "all" else "an unknown user")
    again = start(place, "true")
    assert (again.started_now, again.pid) == (False, first.pid)
    ended = stop(place, 5)
    assert (ended.state, ended.code) == ("ended", 128 + signal.SIGTERM)
    assert processes.started(first.pid) == -1
    assert start(place, "true").started_now


def test_a_damaged_state_is_written_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEARTBEAT", 0.1)
    first = start(place, "sleep 1000")
    path = folder(place) / "status.json"
    path.write_text("")
    until(path.read_text)
    assert json.loads(path.read_text())["marker"] == first.marker
    # What was removed on purpose stays away.
    path.unlink()
    assert status(place).state == "running"
    os.kill(first.supervisor[0], signal.SIGKILL)
    until(lambda: status(place).state == "lost")


def test_the_end_of_the_first_is_not_that_of_the_second(place: Path) -> None:
    first = start(place, "sleep 1000")
    # Somebody removes all of it.
    shutil.rmtree(folder(place))
    second = start(place, "sleep 1000")
    assert second.started_now
    os.kill(first.pid, signal.SIGTERM)
    until(lambda: processes.started(first.supervisor[0]) == -1)
    found = status(place)
    assert (found.state, found.marker) == ("running", second.marker)
    # An earlier version writes its end all the same: who lives is known by the lock.
    ended = {**first.to_json(), "state": "ended", "code": 143, "ended": 1.0}
    for name in ("status.json", "status.json.last"):
        (folder(place) / name).write_text(json.dumps(ended))
    found = status(place)
    assert (found.state, found.marker) == ("running", second.marker)
    assert not start(place, "true").started_now


def test_a_supervisor_of_an_earlier_version_has_no_lock(place: Path) -> None:
    first = start(place, "sleep 1000")
    for name in ("status.json.last", "supervisor.lock"):
        (folder(place) / name).unlink()
    assert status(place).state == "running"
    again = start(place, "true")
    assert (again.started_now, again.marker) == (False, first.marker)
    stop(place, 5)
    assert status(place).state == "ended"


def test_those_who_start_at_once_start_one(place: Path) -> None:
    path = place / "agent.pyz"
    path.write_bytes(agent_client.archive())
    request = json.dumps(
        {"name": "job", "command": ["sleep", "1000"], "folder": str(place), "env": {}, "about": {}}
    )
    command = [sys.executable, "-I", "-S", str(path), "start"]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for one in started:
        assert one.stdin is not None
        one.stdin.write(request)
        one.stdin.close()
    answers: list[dict[str, Any]] = []
    for one in started:
        assert one.stdout is not None
        answers.append(json.load(one.stdout))
        one.stdout.close()
        one.wait()
    assert sorted(answer["started_now"] for answer in answers) == [False, False, False, True]
    assert len({answer["marker"] for answer in answers}) == 1
    (own,) = (place / ROOT / "hosts").iterdir()
    supervisor.stop(str(own), StopRequest("job", 5))


def test_its_end_is_written_when_there_is_room_again(place: Path) -> None:
    """The folder cannot be written for a while, as where a disk is full."""
    start(place, "sleep 0.5; exit 3")
    path = folder(place)
    away = path.with_name("away")
    path.rename(away)
    path.write_text("no folder")
    until(lambda: processes.started(json.loads((away / "status.json").read_text())["pid"]) == -1)
    path.unlink()
    away.rename(path)
    found = until(lambda: has_ended(place))
    assert found.code == 3


def test_a_lock_whose_file_was_cut_off_is_held(place: Path) -> None:
    root = str(place / ROOT)
    assert acquire(root, "run", "token", "ann", 60).taken
    (place / ROOT / "locks.json").write_text("")
    other = acquire(root, "run", "other", "bob", 60)
    assert (other.taken, other.holder.user) == (False, "ann")
    assert set(statuses.statuses(root)) == set()


@pytest.mark.parametrize("field", ["started", "started_counted"])
def test_a_clock_that_was_ahead_hides_no_later_process(place: Path, field: str) -> None:
    """The clock of the host was an hour ahead when the one before was started, and is right now."""
    first = start(place, "true")
    until(lambda: has_ended(place))
    for name in DAMAGES["all"]:
        path = folder(place) / name
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, field: record[field] + 3600}) + "\n")
    second = start(place, "sleep 1000")
    assert second.started_now
    assert second.marker != first.marker
    assert json.loads((folder(place) / "status.json").read_text())["marker"] == second.marker
    assert status(place).state == "running"
    assert stop(place, 5).marker == second.marker
    assert processes.started(second.pid) == -1
