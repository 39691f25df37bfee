"""AWSCluster and the instances that it makes: in a cloud without hosts."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster.providers.aws import AWSCluster
from flambe.cluster.providers.aws.api import alarms, instances
from flambe.cluster.providers.aws.api.aws_tags import (
    HOST_KEY,
    HOST_NAME,
    LAUNCH_TOKEN,
    PURPOSE,
    READY_WITHIN,
    VOLUME,
)
from flambe.cluster.providers.aws.api.quotas import quota_code
from flambe.cluster.providers.aws.aws_validation import OUR_TAGS, findings
from flambe.cluster.providers.aws.policy import policy_json
from flambe.cluster.providers.aws.request import LaunchRequests
from flambe.cluster.providers.aws.user_data import HostKey
from flambe.errors import ConfigError, FlambeError, RunError
from flambe.testing import RecordingObserver
from tests.cloud import Cloud
from tests.cloud.conftest import reach
from tests.cluster.providers.aws.conftest import NAMES, Make, left, up
from tests.cluster.providers.aws.test_aws_faults import Client

pytestmark = pytest.mark.integration

NAN, INF = float("nan"), float("inf")
OURS = (
    "Name", "creator", "Purpose", "Cluster-Name", "Role", LAUNCH_TOKEN, HOST_NAME, READY_WITHIN,
    HOST_KEY, VOLUME,
)  # fmt: skip


def test_all_is_made_found_again_and_removed(paper: Cloud, make: Make) -> None:
    cluster = make(tags={"company": "ours"}, volume_size=50)
    assert cluster.missing_machines() == NAMES
    assert up(cluster) == NAMES
    assert up(make()) == NAMES
    assert len(left(paper)) == 3
    described = [m.model for m in left(paper)]
    for model in described:
        tags = {tag["key"]: tag["value"] for tag in model.get_tags()}
        assert tags["company"] == "ours"
        assert tags["creator"] == "me@example.com"
        assert tags["Purpose"] == "flambe"
        assert tags["Cluster-Name"] == "lab"
        assert tags["Name"] in ("lab_orchestrator", "lab_factory")  # until they are reached
    assert make().missing_machines() == []
    make(name="other").remove_machines()
    make(creator="you@example.com").remove_machines()
    assert len(left(paper)) == 3
    cluster.remove_machines()
    assert left(paper) == []
    assert cluster.find_machines() == []
    # The tokens of the first launch are spent.
    assert up(make()) == NAMES


def test_images_and_disks_are_those_of_the_file(paper: Cloud, make: Make) -> None:
    ours, theirs = (
        paper.prepared.images[name] for name in ("ubuntu/server/22.04", "ubuntu/server/24.04")
    )
    cluster = make(1, orchestrator_ami=ours, factory_ami=theirs, volume_size=50.0)
    up(cluster)
    found = cluster.fleet.find()
    images = {name: instance.image for name, instance in found.items()}
    assert images == {"orchestrator": ours, "factory_1": theirs}
    for instance in found.values():
        attached = [{"Name": "attachment.instance-id", "Values": [instance.id]}]
        volumes = paper.client("ec2").describe_volumes(Filters=attached)
        assert [volume["Size"] for volume in volumes["Volumes"]] == [50]


def test_hosts_have_a_role_only_where_one_is_given(paper: Cloud, make: Make) -> None:
    up(make(0))
    (instance,) = make(0).fleet.find().values()
    assert instance.profile == ""
    make(0).remove_machines()
    paper.client("iam").create_instance_profile(InstanceProfileName="readers")
    up(make(0, instance_profile="readers"))
    (instance,) = make(0).fleet.find().values()
    assert instance.profile == "readers"


def test_a_warm_start_asks_aws_little(paper: Cloud, make: Make) -> None:
    up(make())
    before = len(list(paper.calls))
    up(make())
    assert len(list(paper.calls)) - before <= 3


def test_more_factories_are_added(paper: Cloud, make: Make) -> None:
    up(make(1))
    first = {machine.id for machine in left(paper)}
    assert up(make(3)) == [*NAMES, "factory_3"]
    assert first < {machine.id for machine in left(paper)}


def test_what_died_is_replaced(paper: Cloud, make: Make) -> None:
    up(make())
    victim = make().fleet.find()["factory_1"].id
    paper.client("ec2").terminate_instances(InstanceIds=[victim])
    assert up(make()) == NAMES
    assert victim not in {machine.id for machine in left(paper)}


def test_two_clients_make_one_cluster(paper: Cloud, make: Make) -> None:
    made: list[list[str]] = []
    threads = [threading.Thread(target=lambda: made.append(up(make()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [NAMES, NAMES]
    assert len(left(paper)) == 3


def notes(cluster: AWSCluster) -> str:
    assert isinstance(cluster.observer, RecordingObserver)
    return "\n".join(cluster.observer.notes)


def test_fewer_factories_are_kept_unless_they_are_to_go(paper: Cloud, make: Make) -> None:
    up(make(3))
    fewer = make(1)
    assert up(fewer) == [*NAMES, "factory_3"]
    assert (
        "3 factories are running, but the file says 1: --prune removes factory_2, factory_3"
        in notes(fewer)
    )
    fewer.prune = True
    assert up(fewer) == NAMES[:2]
    assert len(left(paper)) == 2
    assert up(make(2)) == NAMES


def test_what_was_stopped_is_started_and_stopped_again_where_that_fails(
    paper: Cloud, make: Make
) -> None:
    up(make())
    ec2 = paper.client("ec2")
    ids = sorted(machine.id for machine in left(paper))
    for name in ids:
        reach(paper.machine(name), "running")
    ec2.stop_instances(InstanceIds=ids)
    for name in ids:
        reach(paper.machine(name), "stopped")
    cluster = make()
    assert cluster.missing_machines() == NAMES
    machines = cluster.create_machines(cluster.find_machines())
    assert [machine.name for machine in machines] == NAMES
    assert sorted(machine.id for machine in left(paper)) == ids
    cluster.discard_machines(machines)  # it could not be made ready
    for name in ids:
        reach(paper.machine(name), "stopped")
    assert sorted(machine.id for machine in left(paper)) == ids


def test_what_another_client_left_unfinished_is_new(paper: Cloud, make: Make) -> None:
    up(make())  # and is gone
    cluster = make()
    machines = cluster.create_machines(cluster.find_machines())
    assert all(machine.new for machine in machines)
    ids = {instance.id for instance in cluster.fleet.find().values()}
    assert ids == {m.id for m in left(paper)}
    cluster.discard_machines(machines)
    assert len(left(paper)) == 3  # they are not this one's to remove


def test_what_differs_is_named(paper: Cloud, make: Make) -> None:
    up(make(2, volume_size=50))
    other = make(2, factories_type="g5.xlarge", tags={"team": "vision"}, volume_size=80)
    up(other)
    said = notes(other)
    assert "factory_1, factory_2: factories_type is t3.large, but the file says g5.xlarge" in said
    assert "the tag team is missing, but the file says vision" in said
    assert "volume is 50 GB gp3, but the file says 80 GB gp3" in said
    assert "orchestrator_type" not in said
    same = make(2, volume_size=50)
    up(same)
    assert notes(same) == ""


DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"factories_type": "c5.large"}, "factory_1: factories_type is t3.large"),
    ({"orchestrator_type": "c5.large"}, "orchestrator: orchestrator_type is t3.large"),
    ({"volume_size": 30}, "volume is 100 GB gp3, but the file says 30 GB gp3"),
    ({"tags": {"a": "b"}}, "the tag a is missing, but the file says b"),
    ({"spot": True}, "factory_1: spot is false, but the file says true"),
    (
        {"dedicated": True},
        "orchestrator, factory_1: dedicated is false, but the file says true",
    ),
    ({"orchestrator_ami": "ami-12345678"}, "but the file says ami-12345678"),
    ({"instance_profile": "p"}, "instance_profile is none, but the file says p"),
    ({"provisioning_timeout": 2}, "provisioning_timeout is 1, but the file says 2"),
    ({"key_name": "other"}, "key_name is tester, but the file says other"),
    ({"use_public": False}, "use_public is true, but the file says false"),
    ({"subnet_id": "subnet-1"}, "but the file says subnet-1"),
    ({"security_group": "sg-1"}, "but the file says sg-1"),
]


def test_each_difference_is_named_by_plan(paper: Cloud, make: Make) -> None:
    up(make(1))
    found = make(1).fleet.find()
    for more, text in DIFFERENCES:
        other = make(1, **more)
        other.instances = found
        (line,) = [line for title, line in other.planned() if title == "differs"]
        assert text in line
        assert line.endswith("to apply it, run flambe down lab first")


def test_a_plan_says_what_is_paid_for(paper: Cloud, make: Make, tmp_path: Path) -> None:
    client = Client(
        paper, tmp_path, 2, spot=True, volume_size=20, orchestrator_timeout=5,
        factories_timeout=0.5, provisioning_timeout=2,
    )  # fmt: skip
    code, said = client.run("plan", client.file)
    assert code == 0, said
    where = f"in {paper.region} ({paper.prepared.subnet}), 20 GB each"
    assert f"1 x t3.large as orchestrator, {where}; ends after 5 h of low use" in said
    assert f"2 x t3.large as factory, spot, {where}; ends after 0.5 h of low use" in said
    assert "ready within 2 h" in said
    assert "differs" not in said
    assert left(paper) == []
    up(make(3))
    code, said = client.run("plan", client.file)
    assert "3 factories are running, but the file says 2: --prune removes factory_3" in said
    assert "spot is false, but the file says true" in said
    assert "volume is 100 GB gp3, but the file says 20 GB gp3" in said
    assert "no changes were made" in said


def test_a_quota_that_is_too_small_is_told_before_anything_is_made(
    paper: Cloud, make: Make
) -> None:
    paper.faults.quotas["L-DB2E81BA"] = 0
    with pytest.raises(FlambeError) as caught:
        up(make(2, factories_type="g5.xlarge"))
    assert "is 0 vCPUs" in str(caught.value)
    assert "2 x g5.xlarge need 8" in str(caught.value)
    assert "--quota-code L-DB2E81BA --desired-value 8" in str(caught.value)
    assert left(paper) == []
    paper.faults.deny("servicequotas:GetServiceQuota")
    cluster = make(2, factories_type="g5.xlarge")
    up(cluster)
    assert "the quota of 2 x g5.xlarge could not be looked up" in notes(cluster)


@pytest.mark.parametrize(
    ("kind", "spot", "code"),
    [
        ("t3.large", False, "L-1216C47A"),
        ("im4gn.large", True, "L-34B43A08"),
        ("g6e.xlarge", True, "L-3819A6DF"),
        ("gr6.4xlarge", False, "L-DB2E81BA"),
        ("p4d.24xlarge", False, "L-417A185B"),
        ("mac2.metal", False, ""),
    ],
)
def test_which_quota_a_type_counts_to(kind: str, spot: bool, code: str) -> None:
    assert quota_code(kind, spot=spot) == code


def test_gpus_of_long_ago_are_told_of_before_spending(paper: Cloud, make: Make) -> None:
    cluster = make(1, factories_type="g3.4xlarge")
    up(cluster)
    told = notes(cluster)
    assert "do not support the GPUs of g3.4xlarge" in told
    assert told.index("g3.4xlarge as factory") < told.index("do not support")


@pytest.mark.faults
def test_a_lost_answer_makes_no_second_cluster(paper: Cloud, make: Make) -> None:
    paper.faults.drop_reply("RunInstances", times=2)
    assert up(make()) == NAMES
    assert len(left(paper)) == 3


@pytest.mark.faults
def test_without_capacity_nothing_is_left(paper: Cloud, make: Make) -> None:
    paper.faults.capacity(2)
    cluster = make()
    with pytest.raises(RunError, match="InsufficientInstanceCapacity"):
        up(cluster)
    assert left(paper) == []


@pytest.mark.faults
def test_the_next_zone_is_tried(paper: Cloud, make: Make) -> None:
    zones = list(paper.prepared.subnets)
    paper.faults.capacity(0, zone=zones[0])
    assert up(make(subnet_id=list(paper.prepared.subnets.values()))) == NAMES


@pytest.mark.faults
def test_throttling_and_failures_of_aws_are_waited_out(paper: Cloud, make: Make) -> None:
    paper.faults.throttle(times=3)
    paper.faults.fail(times=2)
    paper.faults.describe_lag(1.0)
    assert up(make()) == NAMES
    assert len(left(paper)) == 3


@pytest.mark.faults
def test_an_instance_that_dies_while_it_starts_takes_the_others_along(
    paper: Cloud, make: Make
) -> None:
    paper.faults.die_pending()
    with pytest.raises(RunError, match="ended while it was starting"):
        up(make())
    assert left(paper) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"key_name": "nosuch"}, "key_name is the name of a key pair"),
        ({"subnet_id": "subnet-0123456789abcdef0"}, "subnet_id is a subnet of this region"),
        ({"orchestrator_ami": "ami-0123456789abcdef0"}, "image"),
    ],
)
def test_what_aws_refuses_is_told_with_a_hint(
    paper: Cloud, make: Make, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(FlambeError, match=said):
        up(make(**more))
    assert left(paper) == []


def test_a_group_that_does_not_serve_is_told_before_anything_is_made(
    paper: Cloud, make: Make
) -> None:
    cloud = paper.client("ec2")
    group = cloud.create_security_group(
        GroupName="closed", Description="closed", VpcId=paper.prepared.vpc
    )["GroupId"]
    with pytest.raises(FlambeError) as caught:
        up(make(security_group=group))
    assert "has no rule that allows SSH" in str(caught.value)
    assert "no rule for traffic from itself" in str(caught.value)
    assert left(paper) == []


def test_what_the_policy_does_not_allow_is_named_before_anything_is_made(
    paper: Cloud, make: Make
) -> None:
    paper.faults.deny("ec2:RunInstances")
    with pytest.raises(FlambeError, match="RunInstances"):
        up(make())
    assert left(paper) == []


def test_the_least_policy_is_enough(paper: Cloud, make: Make) -> None:
    # The stand-in reads the actions of a policy, and neither its resources nor its conditions.
    least = json.loads(policy_json())
    for statement in least["Statement"]:
        statement["Resource"] = "*"
        statement.pop("Condition", None)
    paper.faults.policy(least)
    cluster = make()
    assert up(cluster) == NAMES
    cluster.remove_machines()
    assert left(paper) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"orchestrator_timeout": 1, "factories_timeout": -1}, "outlive"),
        ({"orchestrator_timeout": 1, "factories_timeout": 2}, "outlive"),
        ({"orchestrator_timeout": -2, "factories_timeout": 0}, "cannot be -2"),
        ({"tags": {"Name": "x"}}, "is set by flambe"),
        ({"factories_alarm": True, "factories_timeout": 200}, "168 hours"),
        ({"factories_alarm": True}, "nothing to do"),
        ({"volume_type": "floppy"}, "volume_type"),
        ({"provisioning_timeout": 0}, "provisioning_timeout"),
        ({"provisioning_timeout": NAN}, "provisioning_timeout cannot be nan"),
        ({"provisioning_timeout": INF}, "provisioning_timeout cannot be inf"),
        ({"orchestrator_timeout": NAN}, "orchestrator_timeout cannot be nan"),
        ({"factories_timeout": NAN, "orchestrator_timeout": 1}, "factories_timeout cannot be nan"),
        ({"orchestrator_timeout": INF, "factories_timeout": 1}, "cannot be inf"),
        ({"volume_size": INF}, "volume_size cannot be inf"),
        ({"volume_size": NAN}, "volume_size cannot be nan"),
        ({"subnet_id": []}, "subnet_id names no subnet"),
        ({"factories_type": "a.b.c"}, "is not an instance type"),
        ({"factories_type": "."}, "is not an instance type"),
        ({"creator": "*"}, "creator cannot be"),
        ({"creator": "m?"}, "creator cannot be"),
        ({"tags": {f"t{n}": "x" for n in range(60)}}, "60 are too many"),
        ({"tags": {f"t{n}": "x" for n in range(41)}}, "41 are too many"),
        ({"tags": {"aws:x": "x"}}, "is set by flambe or AWS"),
        ({"tags": {"AWS:x": "x"}}, "is set by flambe or AWS"),
        *[({"tags": {name: "x"}}, "is set by flambe or AWS") for name in OURS],
        ({"tags": {"x" * 129: "x"}}, "is not a name"),
        ({"tags": {"": "x"}}, "is not a name"),
        ({"tags": {"x": "x" * 257}}, "is not valid"),
    ],
)
def test_what_is_wrong_with_a_file_is_known_without_aws(values: dict[str, Any], said: str) -> None:
    assert said in " ".join(message for _, message, _ in findings(values))


@pytest.mark.parametrize(
    "values",
    [
        {"orchestrator_timeout": -1, "factories_timeout": -1},
        {"orchestrator_timeout": 5, "factories_timeout": 0},
        {"orchestrator_timeout": 0.5, "factories_timeout": 0.5},
        {"factories_timeout": 168, "factories_alarm": True},
        {"tags": {f"t{n}": "x" for n in range(40)}},
    ],
)
def test_what_is_right_passes(values: dict[str, Any]) -> None:
    assert list(findings(values)) == []


def test_all_tags_of_ours_are_counted_and_refused(paper: Cloud, make: Make) -> None:
    fleet = make(1).fleet
    requests = LaunchRequests(fleet.config, fleet.session)
    role = fleet.config.orchestrator
    request: Any = requests.build(role, 1, HostKey.new(), paper.prepared.subnet, "token")
    names = {tag["Key"] for tag in request["TagSpecifications"][0]["Tags"]} | {HOST_NAME}
    assert names == set(OURS)
    assert len(names) == OUR_TAGS


def test_filters_are_literal(paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keywords that were given in Python are not checked before the cluster is looked for."""
    up(make(0))
    others = [make(0, creator=creator) for creator in ("*", "m?@example.com", "me@*", "\\*")]
    for other in others:
        assert other.fleet.find() == {}
        other.remove_machines()
        assert len(left(paper)) == 1
    # What comes of a filter is compared again, as text.
    monkeypatch.setattr(instances, "escape_filter", lambda value: value)
    for other in others:
        assert other.fleet.find() == {}


def test_what_was_given_in_python_is_checked_before_a_launch(paper: Cloud, make: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        up(make(1, creator="*", orchestrator_timeout=1, volume_type="floppy"))
    for text in ("creator cannot be '*'", "could outlive", "volume_type cannot be 'floppy'"):
        assert "cluster lab: " in str(caught.value)
        assert text in str(caught.value)
    assert paper.calls.count("RunInstances") == 0


def test_the_policy_names_what_flambe_names() -> None:
    statements = {each["Sid"]: each for each in json.loads(policy_json())["Statement"]}
    assert statements["OurAlarms"]["Resource"].endswith(f":alarm:{alarms.PREFIX}*")
    purposes = {
        value
        for statement in statements.values()
        for key, value in statement.get("Condition", {}).get("StringEquals", {}).items()
        if key.endswith("/Purpose")
    }
    assert purposes == {PURPOSE}
