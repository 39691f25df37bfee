"""Steps and services of a cluster, by what they ask of hosts that do not exist.

What the hosts make of it is tested on real ones; these show in milliseconds what is asked, of which
host, and what becomes of its answer.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from flambe.cluster.provisioning import connectivity, lock, setup_commands
from flambe.cluster.services import idle_shutdown
from flambe.cluster.services.service import Service
from flambe.errors import CommandError, HeldError, RemoteError
from flambe.remote.agent.protocol import LockHolder, LockRequest, RunState
from flambe.testing import RecordingCluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingCluster:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))
    cluster = RecordingCluster(factories=2)
    cluster.answer(
        ["bash", "-c", "printenv PATH; bash -lc 'echo; exec printenv PATH'"], "/bin\n\n/opt\n"
    )
    return cluster


# -- setup commands -------------------------------------------------------------------------------


def test_setup_commands_run_once_on_each_host_and_are_marked(cluster: RecordingCluster) -> None:
    cluster.setup_cmds = ["apt-get install jq", "modprobe x"]
    pending = setup_commands.pending_hosts(cluster.context)
    assert len(pending) == 3
    setup_commands.run(cluster.context, pending)
    for name in ("orchestrator", "factory_1", "factory_2"):
        commands = cluster.commands[name]
        assert commands.index("apt-get install jq") < commands.index("modprobe x")
    assert [host.login_path for host in cluster.hosts] == ["/opt:/bin"] * 3
    for host in cluster.hosts:
        host.refresh(cluster.name)
    assert setup_commands.pending_hosts(cluster.context) == []
    cluster.setup_cmds = ["apt-get install jq"]
    assert len(setup_commands.pending_hosts(cluster.context)) == 3


def test_a_failed_setup_command_has_a_hint_and_leaves_no_mark(cluster: RecordingCluster) -> None:
    cluster.setup_cmds = ["apt-get install jq"]
    cluster.connections["factory_2"].answer(
        "apt-get install", stderr="E: could not open the lock file, are you root?\n", code=100
    )
    with pytest.raises(CommandError) as raised:
        setup_commands.run(cluster.context, cluster.hosts)
    assert str(raised.value).startswith("factory_2 (192.0.2.3): exit code 100: apt-get install jq")
    assert "the user of the cluster is not root:   sudo apt-get install jq" in str(raised.value)
    assert setup_commands.MARK in cluster.agents["factory_1"].report.marks
    assert setup_commands.MARK not in cluster.agents["factory_2"].report.marks


# -- connectivity ---------------------------------------------------------------------------------


def test_hosts_are_connected_both_ways_and_once(cluster: RecordingCluster) -> None:
    assert connectivity.is_unverified(cluster.hosts)
    connectivity.verify(cluster.context)
    targets = {
        name: [argv[-2] for argv in connection.argvs if argv[0] == "ssh"]
        for name, connection in cluster.connections.items()
    }
    assert sorted(targets["orchestrator"]) == ["factory_1.recorded", "factory_2.recorded"]
    assert targets["factory_1"] == targets["factory_2"] == ["orchestrator.recorded"]
    assert not connectivity.is_unverified(cluster.hosts)


def test_a_host_that_cannot_be_reached_is_named_with_its_address(cluster: RecordingCluster) -> None:
    cluster.connections["factory_1"].answer(["ssh"], stderr="ssh: Connection timed out\n", code=255)
    with pytest.raises(RemoteError) as raised:
        connectivity.verify(cluster.context)
    assert str(raised.value).startswith(
        "factory_1 (192.0.2.2): cannot reach orchestrator at its private address 192.0.2.1: "
        "ssh: Connection timed out"
    )
    assert connectivity.is_unverified(cluster.hosts)


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_is_given_back_also_after_an_error(cluster: RecordingCluster) -> None:
    locks = cluster.agents["orchestrator"].report.locks

    def fail() -> None:
        with lock.held(cluster.context, "run", "starting a run"):
            assert locks["recorded/run"].holder.doing == "starting a run"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert locks == {}


def test_a_lock_that_another_holds_names_them(cluster: RecordingCluster) -> None:
    bob = LockHolder("bob", "laptop", doing="starting a run", command="flambe x.yaml")
    cluster.orchestrator.agent.ask(LockRequest("recorded/run", "his", bob, 60))
    with (
        pytest.raises(
            HeldError, match=r"bob on laptop is starting a run since .*\n  flambe x.yaml"
        ),
        lock.held(cluster.context, "run", "starting a run"),
    ):
        pass
    assert cluster.agents["orchestrator"].report.locks["recorded/run"].token == "his"


# -- services -------------------------------------------------------------------------------------


def test_a_service_is_left_as_it_is_and_restarted_where_it_changes(
    cluster: RecordingCluster,
) -> None:
    service = Service(cluster.context, cluster.orchestrator, "app")
    agent = cluster.agents["orchestrator"]
    assert not service.is_running

    def start(port: int) -> list[str]:
        agent.requests.clear()
        service.start(service.start_request(["app", str(port)], {"port": port}, {}))
        return [verb for verb, _ in agent.requests]

    assert start(1) == ["start"]
    assert start(1) == []
    assert start(2) == ["stop", "start"]
    assert agent.report.runs["recorded.app"].command == ["app", "2"]
    service.stop()
    assert agent.report.runs["recorded.app"].state is RunState.ENDED
    assert not service.is_running


def test_reapers_get_the_timeout_of_their_role(cluster: RecordingCluster) -> None:
    idle_shutdown.arm(cluster.context, cluster.hosts, {True: 24.0, False: 0.5})
    for host, connection in zip(cluster.hosts, cluster.connections.values(), strict=True):
        (content,) = connection.files.values()
        settings = json.loads(content)
        assert settings["timeout"] == (24.0 if host.is_orchestrator else 0.5)
        assert settings["cluster"] == "recorded"
        run = host.report.runs["recorded.reaper"]
        assert run.runs
        assert run.command[-2] == "reap"
    # Where there is no timeout any more, they end.
    idle_shutdown.arm(cluster.context, cluster.hosts, {True: -1.0, False: 0.5})
    states = [agent.report.runs["recorded.reaper"].state for agent in cluster.agents.values()]
    assert states == [RunState.ENDED, RunState.RUNNING, RunState.RUNNING]


# -- files ----------------------------------------------------------------------------------------


def test_a_folder_is_sent_once_and_spread_from_there(
    cluster: RecordingCluster, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    cluster.send(tmp_path / "data", "data", delete=True)
    copies = {name: connection.copies for name, connection in cluster.connections.items()}
    assert [dataclasses.astuple(copy)[1:4] for copy in copies["orchestrator"]] == [
        ("data", True, True)
    ]
    assert copies["factory_1"] == copies["factory_2"] == []
    spread = [argv for argv in cluster.connections["orchestrator"].argvs if argv[0] == "rsync"]
    assert sorted(argv[-1].partition(":")[0] for argv in spread) == [
        "factory_1.recorded",
        "factory_2.recorded",
    ]
    assert all("--delete" in argv for argv in spread)
