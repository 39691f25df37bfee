"""What is left on AWS, and the alarms: in a cloud without hosts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flambe.cluster.providers.aws import orphans
from flambe.cluster.providers.aws.api import alarms
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.policy import policy_json
from tests.cloud import Cloud
from tests.cluster.providers.aws.conftest import Make, left
from tests.experiment.lab import environment

pytestmark = pytest.mark.integration


def flambe(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "flambe", *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_the_policy_is_printed() -> None:
    assert flambe("aws", "policy").stdout == policy_json()


def test_what_is_needed_is_listed_and_let_be(paper: Cloud, make: Make) -> None:
    assert "flambe has nothing in" in flambe("gc").stdout
    cluster = make(1)
    cluster.create_machines([])
    told = flambe("gc", "--yes").stdout
    for instance in cluster.fleet.find().values():
        assert instance.id in told
    assert "lab" in told
    assert "me@example.com" in told
    assert "instance-hours since they were started" in told
    assert len(left(paper)) == 2


def settled(paper: Cloud, ids: list[str]) -> None:
    tags = [{"Key": "flambe-number", "Value": "factory_1"}]
    paper.client("ec2").create_tags(Resources=ids, Tags=tags)


@pytest.mark.faults
def test_what_was_never_ready_goes(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make(1, provisioning_timeout=0.5)
    cluster.create_machines([])
    assert not any(each.orphaned for each in orphans.list_resources(cluster.session))
    monkeypatch.setattr(Instance, "age", 2600.0)
    assert not any(each.orphaned for each in orphans.list_resources(cluster.session))
    monkeypatch.setattr(Instance, "age", 2800.0)
    found = orphans.list_resources(cluster.session)
    assert {each.orphaned for each in found} == {"it was not ready within 0.5 h"}
    orphans.remove(cluster.session, found)
    assert left(paper) == []


@pytest.mark.faults
def test_factories_that_lost_their_orchestrator_go(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make(1)
    cluster.create_machines([])
    found = cluster.fleet.find()
    settled(paper, [instance.id for instance in found.values()])
    monkeypatch.setattr(Instance, "age", 7200.0)
    assert not any(each.orphaned for each in orphans.list_resources(cluster.session))
    cluster.fleet.instances.terminate([found["orchestrator"].id])
    (lost,) = [each for each in orphans.list_resources(cluster.session) if each.orphaned]
    assert lost.id == found["factory_1"].id
    assert lost.orphaned == "the orchestrator of its cluster is gone"


@pytest.mark.faults
def test_volumes_and_alarms_that_were_left_go(paper: Cloud, make: Make) -> None:
    cluster = make(1)
    cluster.create_machines([])
    (factory,) = [m for m in left(paper) if m.model.get_tags() and "Factory" in str(tags(m))]
    for identity in (factory.id, "i-00000000000000000"):
        wanted = alarms.alarm_request(paper.region, "lab", identity, 5)
        paper.client("cloudwatch").put_metric_alarm(**wanted)
    ec2 = paper.client("ec2")
    zone = ec2.describe_instances()["Reservations"][0]["Instances"][0]["Placement"]
    spec = [{"ResourceType": "volume", "Tags": [{"Key": "Purpose", "Value": "flambe"}]}]
    volume = ec2.create_volume(
        AvailabilityZone=zone["AvailabilityZone"], Size=8, TagSpecifications=spec
    )["VolumeId"]
    told = flambe("gc").stdout
    assert "2 orphans: flambe gc --yes removes them" in told
    assert volume in told
    assert "flambe-i-00000000000000000" in told
    assert f"flambe-{factory.id}" not in told
    assert "2 orphans removed" in flambe("gc", "--yes").stdout
    assert "orphan" not in flambe("gc").stdout
    assert alarms.list_alarms(cluster.session) == [f"flambe-{factory.id}"]
    assert len(left(paper)) == 2


def tags(machine: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in machine.model.get_tags()}


def test_two_regions(paper: Cloud, make: Make) -> None:
    make(1).create_machines([])
    other = make(1, region_name="us-west-2")
    assert other.fleet.find() == {}
    told = flambe("gc", "--region", "us-west-2", "--region", paper.region).stdout
    assert paper.region in told
    assert "flambe has nothing in us-west-2" in flambe("gc", "--region", "us-west-2").stdout


@pytest.mark.faults
def test_credentials_that_expired_are_told(paper: Cloud, make: Make) -> None:
    make(1)
    paper.faults.expire_credentials()
    done = flambe("gc", code=1)
    assert "log in again" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("hours", "period", "periods"),
    [(0, 300, 2), (0.5, 300, 6), (5, 300, 60), (24, 300, 288), (24.5, 3600, 25), (168, 3600, 168)],
)
def test_an_alarm_looks_back_as_far_as_the_timeout(
    paper: Cloud, hours: float, period: int, periods: int
) -> None:
    wanted = alarms.alarm_request(paper.region, "lab", "i-00000000000000000", hours)
    assert (wanted["Period"], wanted["EvaluationPeriods"]) == (period, periods)
    paper.client("cloudwatch").put_metric_alarm(**wanted)  # the cloud checks its limits


def test_the_keys_of_the_table_are_read_by_people(paper: Cloud, make: Make) -> None:
    make(1).create_machines([])
    lines = flambe("gc").stdout.splitlines()
    assert lines[0].split()[:4] == ["id", "cluster", "creator", "what"]
    assert max(map(len, lines)) <= 140
