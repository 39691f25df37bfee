"""A cluster that records, and what its hosts are asked for."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from flambe.errors import CommandError, UnreachableError
from flambe.remote import Host
from flambe.remote.agent.protocol import (
    LockHolder,
    LockRequest,
    RunState,
    StartRequest,
    StopRequest,
)
from flambe.testing import (
    FakeConnection,
    RecordingCluster,
    fake_connection,
    recording_cluster,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("module", [fake_connection, recording_cluster])
def test_its_examples_are_right(module: object) -> None:
    from types import ModuleType

    assert isinstance(module, ModuleType)
    names = {"Host": Host, "FakeConnection": FakeConnection}
    assert doctest.testmod(module, extraglobs=names).failed == 0


def test_it_is_ready_at_once_and_writes_nothing_here(tmp_path: Path) -> None:
    cluster = RecordingCluster(factories=2)
    cluster.provision()
    assert [host.machine.name for host in cluster.hosts] == [
        "orchestrator",
        "factory_1",
        "factory_2",
    ]
    assert cluster.orchestrator.path("data") == "/home/user/data"
    assert len({host.identity for host in cluster.hosts}) == 3
    assert not list(tmp_path.rglob("*.json"))


def test_commands_of_all_hosts_are_recorded_and_answered() -> None:
    cluster = RecordingCluster(factories=2)
    cluster.answer(["sh", "-c"], "ready\n")
    results = cluster.run_cmds(["modprobe x", "nvidia-smi"])
    assert [result.stdout for result in results] == ["ready\n"] * 3
    assert cluster.commands == {
        name: ["modprobe x", "nvidia-smi"] for name in ("orchestrator", "factory_1", "factory_2")
    }
    cluster.answer(["false"], code=1)
    with pytest.raises(CommandError, match=r"orchestrator \(192.0.2.1\): exit code 1: false"):
        cluster.orchestrator.run(["false"])


def test_what_is_sent_to_hosts_is_recorded() -> None:
    cluster = RecordingCluster()
    cluster.send_content("text", "etc/app.conf")
    cluster.create_dirs(["data", "logs"])
    for connection in cluster.connections.values():
        assert connection.files == {"etc/app.conf": b"text"}
    assert ["mkdir" in command for command in cluster.commands["factory_1"]][-1:] == [True]


def test_an_unreachable_host_is_an_error() -> None:
    cluster = RecordingCluster(factories=2)
    cluster.connections["factory_2"].be_unreachable()
    with pytest.raises(UnreachableError, match=r"factory_2 \(192.0.2.3\)"):
        cluster.create_dirs(["data"])


def test_its_agents_keep_what_they_are_asked_for() -> None:
    cluster = RecordingCluster()
    host, agent = cluster.orchestrator, cluster.agents["orchestrator"]
    host.mark(cluster.name, "prepared", "v1")
    start = StartRequest(name="recorded.app", command=["app"], about={"port": 1})
    assert host.agent.ask(start).started_now
    host.refresh(cluster.name)
    assert agent.report.marks == {"prepared": "v1"}
    assert agent.report.runs["recorded.app"].runs
    stopped = host.agent.ask(StopRequest("recorded.app"))
    assert stopped is not None
    assert stopped.state is RunState.ENDED
    ann, bob = LockHolder(user="ann"), LockHolder(user="bob")
    assert host.agent.ask(LockRequest("run", "a", ann, 60)).taken
    answer = host.agent.ask(LockRequest("run", "b", bob, 60))
    assert (answer.taken, answer.holder) == (False, ann)
    assert [verb for verb, _ in agent.requests] == [
        *("report", "mark", "start", "report", "stop", "lock", "lock"),
    ]
