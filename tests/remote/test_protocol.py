"""What client and agent say to each other: older files, damaged values, older Pythons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flambe.remote.agent.message import plain
from flambe.remote.agent.protocol import (
    HostReport,
    KeysRequest,
    Lock,
    LockHolder,
    ReaperStatus,
    RunRecord,
    RunState,
    RunStatus,
    StartRequest,
    StopRequest,
)
from flambe.remote.agent.reaper.settings import ReaperSettings, Step
from flambe.remote.agent_client import archive

# As the version before wrote it: no restarts, no clock of the boot.
OLD_STATUS = {
    "state": "ended",
    "command": ["sh", "-c", "true"],
    "about": {"user": "ann", "host": "laptop", "what": "running"},
    "marker": "job-1-2",
    "boot": "b",
    "started": 100,
    "log": "/x/output.log",
    "supervisor": [1, 2],
    "pid": 3,
    "code": 0,
    "ended": 101.5,
}
OLD_SETTINGS = {
    "timeout": 0.5,
    "provisioning": 1,
    "ready": "/var/lib/flambe/ready",
    "lease": "/home/ubuntu/.flambe/hosts/*/lease-*.json",
    "command": ["shutdown", "-h", "now"],
    "patience": 300,
    "escalate": [
        {"command": ["poweroff", "-f"], "patience": 60},
        {"write": "/proc/sysrq-trigger", "text": "o", "patience": 60},
    ],
    "log": "/dev/console",
    "seen": "/var/lib/flambe/seen.json",
}


def test_a_status_of_an_earlier_version_is_read_and_written_alike() -> None:
    record = RunRecord.from_json(OLD_STATUS)
    assert record.state is RunState.ENDED
    assert (record.started, record.started_counted, record.restarts) == (100.0, None, 0)
    written = record.to_json()
    assert {key: written[key] for key in OLD_STATUS} == OLD_STATUS
    # An earlier version asks whether these names are there, and reads them as numbers.
    running = RunRecord(state=RunState.RUNNING).to_json()
    assert not {"code", "ended", "ended_counted", "started_counted"} & set(running)
    assert json.loads(json.dumps(written))["state"] == "ended"


@pytest.mark.parametrize(
    "value",
    [None, 3, [], "text", {}, {"state": 7, "pid": "x", "supervisor": [1, "a"], "about": []}],
    ids=repr,
)
def test_what_is_missing_or_of_another_kind_is_the_default(value: object) -> None:
    assert RunStatus.from_json(value) == RunStatus()
    report = HostReport.from_json({"facts": value, "runs": {"a": value}, "keys": value})
    assert report == HostReport(runs={"a": RunStatus()})
    assert HostReport.from_json(value) == HostReport()


def test_an_answer_goes_there_and_back() -> None:
    settings = ReaperSettings.from_json(OLD_SETTINGS)
    report = HostReport(
        runs={"a": RunStatus.from_json(OLD_STATUS)},
        locks={"c/run": Lock("t", LockHolder(user="ann", doing="starting a run"), 1.0, 2.0, "b")},
        reaper=ReaperStatus(settings, ready=False, now=3.0),
        marks={"setup": "abc", "n": [1, None]},
    )
    sent = json.loads(json.dumps(plain(report)))
    assert HostReport.from_json(sent) == report
    assert sent["environment"] is None
    assert sent["locks"]["c/run"]["holder"]["what"] == "starting a run"
    assert HostReport.from_json({"reaper": {}, "environment": None}).reaper is None


def test_settings_are_written_for_reapers_of_earlier_versions() -> None:
    """These ask whether a name is there, not whether it is empty."""
    settings = ReaperSettings.from_json(OLD_SETTINGS)
    assert settings.escalate[1] == Step(write="/proc/sysrq-trigger", text="o")
    written = settings.to_json()
    assert "cluster" not in written
    assert ReaperSettings.from_json(written) == settings
    steps: Any = written["escalate"]
    assert ["command" in step for step in steps] == [True, False]
    assert ReaperSettings(["x"]).to_json() == {"command": ["x"]}


def test_requests_leave_out_what_is_not_asked_for() -> None:
    assert KeysRequest("c", public="p").to_json() == {"cluster": "c", "public": "p"}
    request = StartRequest(name="job", command=["true"], env={"A": "b"})
    assert StartRequest.from_json(request.to_json()) == request
    assert StopRequest.read_answer(None) is None


@pytest.mark.parametrize("python", ["python3.8", "python3.9", "python3.13"])
def test_the_agent_runs_under_other_pythons(tmp_path: Path, python: str) -> None:
    version = python.removeprefix("python")
    found = [str(p) for p in Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    program = next(iter(found), shutil.which(python))
    works = program and not subprocess.run([program, "-c", ""], check=False).returncode
    if not program or not works:
        pytest.skip(f"there is no {python}")
    path = tmp_path / "agent.pyz"
    path.write_bytes(archive())

    def ask(verb: str, payload: dict[str, object]) -> Any:
        done = subprocess.run(
            [program, "-I", "-S", str(path), verb],
            env={**os.environ, "HOME": str(tmp_path)},
            input=json.dumps(payload),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    job = StartRequest(name="job", command=["sh", "-c", "exit 3"], folder=str(tmp_path))
    assert RunStatus.from_json(ask("start", job.to_json())).started_now
    ended = RunStatus.from_json(ask("stop", StopRequest("job").to_json()))
    assert (ended.state, ended.code) == (RunState.ENDED, 3)
    report = HostReport.from_json(ask("report", {"cluster": "c"}))
    assert report.facts.python.startswith(version)
    assert report.runs["job"].code == 3
