"""What goes wrong between a client and AWS: the instances that are left are those that are told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster.providers.aws import AWSCluster
from flambe.errors import FlambeError, RunError
from flambe.remote.agent.protocol import LockHolder, LockRequest
from flambe.testing import RecordingObserver
from tests.cloud import Cloud
from tests.cloud.conftest import reach
from tests.cluster.providers.aws.conftest import NAMES, Make, check_often, keywords, left, up
from tests.experiment.lab import environment, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.xdist_group("metal-aws-faults"),
]

# ``flambe``, killed when it has got so far: at the n-th thing that it writes down or says. Its
# reapers look often.
KILLED = """
import os, signal, sys, threading
from flambe.cli import targets
from flambe.cli.main import main
from flambe.cluster.providers.aws import audit_log
from flambe.cluster.providers.aws.aws_config import AwsConfig

last, lock, seen = int(sys.argv.pop(1)), threading.Lock(), []

def counted(function):
    def step(*arguments, **more):
        with lock:
            seen.append(arguments[1:])
            if len(seen) == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return step

audit_log.AuditLog.write = counted(audit_log.AuditLog.write)
targets.ClusterDisplay.note = counted(targets.ClusterDisplay.note)
settings = AwsConfig.reaper_settings
AwsConfig.reaper_settings = lambda self, role: {**settings(self, role), "check": 0.5}
sys.exit(main())
"""
NEVER = "0"


class Client:
    """``flambe`` and the file of a cluster, in a cloud."""

    def __init__(self, cloud: Cloud, folder: Path, factories: int = 1, **more: Any) -> None:
        self.file = folder / "cluster.yaml"
        values = keywords(cloud, factories, **more)
        lines = "".join(f"{name}: {value}\n" for name, value in values.items())
        self.file.write_text(f"!AWSCluster\n{lines}")
        self.env = {**environment(), **cloud.environment, "FLAMBE_HOME": str(folder / "home")}

    def start(self, *words: object, killed: str = NEVER) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, killed, *map(str, words or [self.file])],
            env=self.env,
            cwd=self.file.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: object, killed: str = NEVER) -> tuple[int, str]:
        with self.start(*words, killed=killed) as process:
            said, _ = process.communicate(timeout=300)
        return process.returncode, said


# -- without hosts --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, 9))
def test_a_client_that_is_killed_is_followed_by_another(
    paper: Cloud, make: Make, tmp_path: Path, step: int
) -> None:
    """At each step up to the launch; nobody lets it in here."""
    client = Client(paper, tmp_path, 2)
    code, said = client.run(killed=str(step))
    assert code == -signal.SIGKILL, said
    assert up(make()) == NAMES
    assert len(left(paper)) == 3


@pytest.mark.parametrize(
    ("number", "times"),
    [
        (signal.SIGINT, 1),
        (signal.SIGINT, 2),
        (signal.SIGTERM, 1),  # of a supervisor, or of kill
        pytest.param(signal.SIGHUP, 1, marks=pytest.mark.long),
    ],
)
def test_an_interruption_while_instances_start(
    paper: Cloud, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    paper.faults.boot_delay(20, 20)
    with Client(paper, tmp_path).start() as process:
        until(lambda: len(left(paper)) == 2, "they are launched", 60)
        time.sleep(1.0)
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.05)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "AWS: waiting for 2 instances to run" in said
    if left(paper):
        assert "flambe down lab --force" in said
        assert times == 2
    assert "Traceback" not in said


def test_what_cannot_be_terminated_is_named(paper: Cloud, make: Make) -> None:
    cluster = make()
    up(cluster)
    paper.faults.deny("ec2:TerminateInstances")
    with pytest.raises(RunError) as caught:
        cluster.remove_machines()
    for machine in left(paper):
        assert machine.id in str(caught.value)
    assert f"aws ec2 terminate-instances --region {paper.region}" in str(caught.value)
    assert "TerminateInstances" in str(caught.value)


def test_credentials_that_expire_in_the_middle(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make()
    instances = cluster.fleet.instances
    original = instances.await_running

    def later(*arguments: Any) -> Any:
        paper.faults.expire_credentials()
        return original(*arguments)

    monkeypatch.setattr(instances, "await_running", later)
    with pytest.raises(FlambeError) as caught:
        up(cluster)
    for machine in left(paper):
        assert machine.id in str(caught.value)
    assert "log in again" in str(caught.value)
    paper.faults.expire_credentials(False)
    assert up(make()) == NAMES
    assert len(left(paper)) == 3


def test_disks_of_stopped_instances_are_not_thrown_away(
    paper: Cloud, tmp_path: Path, make: Make
) -> None:
    up(make(1))
    ids = [machine.id for machine in left(paper)]
    paper.client("ec2").stop_instances(InstanceIds=ids)
    for name in ids:
        reach(paper.machine(name), "stopped")
    client = Client(paper, tmp_path)
    code, said = client.run("down", client.file)
    assert code == 1
    assert "cannot be checked" in said
    assert "starts them; --force" in said
    assert len(left(paper)) == 2
    code, said = client.run("down", client.file, "--force")
    assert code == 0, said
    assert left(paper) == []


def audit_log(cluster: AWSCluster) -> list[dict[str, Any]]:
    lines = cluster.fleet.audit_log.path.read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_journal_says_what_there_is(paper: Cloud, make: Make) -> None:
    cluster = make()
    up(cluster)
    lines = audit_log(cluster)
    launched = {
        identity for line in lines if line["what"] == "launched" for identity in line["ids"]
    }
    assert launched == {machine.id for machine in left(paper)}
    # Each was written down before it was asked for.
    asked = [line for line in lines if line["what"] == "launch"]
    assert {line["role"]: line["count"] for line in asked} == {"Orchestrator": 1, "Factory": 2}
    cluster.remove_machines()
    (ended,) = [line for line in audit_log(cluster) if line["what"] == "terminate"]
    assert set(ended["ids"]) == launched


# -- with hosts -----------------------------------------------------------------------------------


@pytest.mark.root
def test_a_client_that_is_killed_leaves_nothing_for_long(cloud: Cloud, tmp_path: Path) -> None:
    """Just after the launch, where nothing was ready."""
    client = Client(cloud, tmp_path, provisioning_timeout=0.004)
    with client.start() as process:
        until(lambda: len(left(cloud)) == 2, "they are launched", 60)
        os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not left(cloud), "they end by themselves", 120)


@contextlib.contextmanager
def alone(cloud: Cloud) -> Iterator[None]:
    """See that nothing is left of a cluster, for the next one."""
    yield
    names = [machine.id for machine in left(cloud)]
    if names:
        cloud.client("ec2").terminate_instances(InstanceIds=names)
    until(lambda: not left(cloud), "they are gone", 60)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_client_that_is_killed_at_any_step(cloud: Cloud, tmp_path: Path) -> None:
    """The same command converges; and without it, all instances end: at every step."""
    for step in range(1, 40):
        folder = tmp_path / str(step)
        folder.mkdir()
        with alone(cloud):
            comes_back = step % 2 == 0
            client = Client(cloud, folder, provisioning_timeout=0.02 if comes_back else 0.01,
                            factories_timeout=0, orchestrator_timeout=0.001)  # fmt: skip
            code, said = client.run(killed=str(step))
            if code == 0:
                break
            assert code == -signal.SIGKILL, said
            if not comes_back:
                until(lambda: not left(cloud), f"all end after step {step}: {said}", 240)
                continue
            code, said = client.run()
            assert code == 0, said
            assert "lab is ready" in said
            assert len(left(cloud)) == 2
    assert step > 10


@pytest.mark.root
@pytest.mark.long
def test_two_clients_at_once(cloud: Cloud, tmp_path: Path) -> None:
    """One makes it ready; the other does too, or names the first."""
    clients = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        clients.append(Client(cloud, tmp_path / name).start())
    ended = []
    for process in clients:
        said, _ = process.communicate(timeout=300)
        ended.append((process.returncode, said))
    assert 0 in [code for code, _ in ended], ended
    for code, said in ended:
        assert "lab is ready" in said if code == 0 else "the cluster is in use" in said
    assert len(left(cloud)) == 2
    code, said = Client(cloud, tmp_path / "one").run()
    assert code == 0, said
    assert "everything is in place" in said


@pytest.mark.root
def test_what_another_prepares_is_not_taken_away(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client launched the instances, and another one was first to prepare them."""
    cluster, trust = make(1), AWSCluster.trust
    who = LockHolder("ada", "elsewhere", doing="preparing the cluster", command="flambe")
    lock = LockRequest(f"{cluster.name}/provision", "hers", who, 60.0)

    def overtaken(self: AWSCluster, members: Sequence[Any]) -> None:
        trust(self, members)
        assert members[0].agent.ask(lock).taken

    monkeypatch.setattr(AWSCluster, "trust", overtaken)
    with pytest.raises(RunError, match="the cluster is in use: ada on elsewhere"):
        cluster.run()
    assert len(left(cloud)) == 2


@pytest.mark.root
@pytest.mark.long
def test_what_was_stopped_comes_back_elsewhere(cloud: Cloud, make: Make) -> None:
    cluster = make(1)
    cluster.run()
    before = {member.machine.name: str(member.machine.address) for member in cluster.hosts}
    ids = [machine.id for machine in left(cloud)]
    cloud.client("ec2").stop_instances(InstanceIds=ids)
    for name in ids:
        reach(cloud.machine(name), "stopped")
    assert set(make(1).missing_machines()) == {"orchestrator", "factory_1"}
    again = make(1)
    again.run()
    after = {member.machine.name: str(member.machine.address) for member in again.hosts}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)
    assert sorted(machine.id for machine in left(cloud)) == sorted(ids)


@pytest.mark.root
@pytest.mark.long
def test_a_long_setup_is_no_idleness(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of hosts that were ready before, and are prepared again."""
    check_often(monkeypatch, 1.0)
    timeouts = {"factories_timeout": 0, "orchestrator_timeout": 0.0001}
    make(1, setup_cmds=["sleep 1"], **timeouts).run()
    make(1, setup_cmds=["sleep 20"], **timeouts).run()  # it would have ended ten times
    assert len(left(cloud)) == 2
    until(lambda: not left(cloud), "they end when nobody needs them", 180)


@pytest.mark.root
@pytest.mark.long
def test_alarms_are_armed_and_removed_and_a_refusal_is_a_warning(cloud: Cloud, make: Make) -> None:
    cluster = make(1, factories_timeout=5, factories_alarm=True)
    cluster.run()
    (alarm,) = cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    identity = cluster.fleet.find()["factory_1"].id
    assert alarm["AlarmName"] == f"flambe-{identity}"
    cloud.faults.deny("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms")
    again = make(1, factories_timeout=4, factories_alarm=True)
    again.run()
    assert isinstance(again.observer, RecordingObserver)
    assert re.search("warning: AWS: no alarms.*PutMetricAlarm", "\n".join(again.observer.notes))
    cloud.faults.clear()
    cluster.remove_machines()
    assert cloud.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
