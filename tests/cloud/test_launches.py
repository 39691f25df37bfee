"""Launching instances, and what becomes of them, as EC2 documents it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cloud import Cloud
from tests.cloud.conftest import launch, lent, reach, refused, request, running

pytestmark = pytest.mark.integration

# -- launching ------------------------------------------------------------------------------------


def test_an_instance_is_pending_and_then_runs(paper: Cloud) -> None:
    paper.faults.boot_delay(0.3, 0.4)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cluster", "Value": "lab"}]}]
    [name] = launch(paper, TagSpecifications=tags)
    ec2 = paper.client("ec2")
    [reservation] = ec2.describe_instances(InstanceIds=[name])["Reservations"]
    [found] = reservation["Instances"]
    assert found["State"]["Name"] == "pending"
    assert found["Tags"] == tags[0]["Tags"]
    assert found["SubnetId"] == paper.prepared.subnet
    reach(paper.machine(name), "running")
    filters = [{"Name": "tag:cluster", "Values": ["lab"]}, _state("running")]
    [reservation] = ec2.describe_instances(Filters=filters)["Reservations"]
    assert reservation["Instances"][0]["PublicIpAddress"] == paper.machine(name).public_address
    assert [machine.id for machine in paper.instances("running")] == [name]


def _state(name: str) -> dict[str, Any]:
    return {"Name": "instance-state-name", "Values": [name]}


def test_boot_delays_are_those_of_the_seed() -> None:
    def delays(seed: int) -> list[float]:
        with lent(hosts=False, seed=seed) as cloud:
            return [cloud.machine(name)._delay for name in launch(cloud, 3)]

    first = delays(1)
    assert first == delays(1) != delays(2)
    assert len(set(first)) == 3


def test_a_client_token_is_good_for_one_launch(paper: Cloud) -> None:
    first = launch(paper, 2, ClientToken="lab-1")
    assert launch(paper, 2, ClientToken="lab-1") == first
    assert len(paper.machines) == 2
    ec2 = paper.client("ec2")
    other = request(paper, 3, ClientToken="lab-1")
    assert refused(ec2.run_instances, **other) == "IdempotentParameterMismatch"
    assert len(launch(paper, 2, ClientToken="lab-2")) == 2
    ec2.terminate_instances(InstanceIds=first[:1])
    same = request(paper, 2, ClientToken="lab-1")
    assert refused(ec2.run_instances, **same) == "IdempotentInstanceTerminated"


def test_a_client_token_is_of_a_zone_where_one_is_named(paper: Cloud) -> None:
    one, two = paper.prepared.subnets.values()
    assert launch(paper, SubnetId=one, ClientToken="t") != launch(
        paper, SubnetId=two, ClientToken="t"
    )
    zones = [machine.model.availability_zone for machine in paper.machines.values()]
    assert zones == ["us-east-1a", "us-east-1b"]


def test_as_many_as_can_be_had_between_the_least_and_the_most(paper: Cloud) -> None:
    assert len(launch(paper, MinCount=1, MaxCount=3)) == 3
    paper.faults.capacity(2)
    assert len(launch(paper, MinCount=1, MaxCount=3)) == 2
    assert len(paper.machines) == 5


@pytest.mark.faults
def test_all_or_nothing(paper: Cloud) -> None:
    paper.faults.capacity(2)
    ec2 = paper.client("ec2")
    assert refused(ec2.run_instances, **request(paper, 3)) == "InsufficientInstanceCapacity"
    assert not paper.machines
    assert len(launch(paper, 2)) == 2  # which are still there
    assert refused(ec2.run_instances, **request(paper)) == "InsufficientInstanceCapacity"
    assert paper.faults.counts["capacity"] == 2
    paper.faults.clear()
    launch(paper)


@pytest.mark.faults
def test_no_capacity_in_a_zone_or_of_a_type(paper: Cloud) -> None:
    one, two = paper.prepared.subnets.values()
    paper.faults.capacity(0, zone="us-east-1a")
    paper.faults.capacity(0, instance_type="g5.xlarge")
    ec2 = paper.client("ec2")
    code = "InsufficientInstanceCapacity"
    assert refused(ec2.run_instances, **request(paper, SubnetId=one)) == code
    gpu = request(paper, SubnetId=two, InstanceType="g5.xlarge")
    assert refused(ec2.run_instances, **gpu) == code
    assert launch(paper, SubnetId=two)


@pytest.mark.faults
def test_a_quota_of_processors(paper: Cloud) -> None:
    paper.faults.quota(6)  # t3.large has two
    [first, *_] = running(paper, 3)
    ec2 = paper.client("ec2")
    assert refused(ec2.run_instances, **request(paper)) == "VcpuLimitExceeded"
    ec2.terminate_instances(InstanceIds=[first.id])
    launch(paper)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "ubuntu"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "t3.enormous"}, "InvalidParameterValue"),
        ({"InstanceType": "m6g.large"}, "InvalidParameterValue"),  # another architecture
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"MinCount": 2, "MaxCount": 1}, "InvalidParameterValue"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8}}]},
            "InvalidBlockDeviceMapping",
        ),
        ({"UserData": "x" * 16_385}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_cannot_be_launched(paper: Cloud, wrong: dict[str, Any], code: str) -> None:
    assert refused(paper.client("ec2").run_instances, **request(paper, **wrong)) == code
    assert not paper.machines


def test_a_group_of_another_network(paper: Cloud) -> None:
    ec2 = paper.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="other", Description="-", VpcId=vpc)["GroupId"]
    wrong = request(paper, SecurityGroupIds=[group])
    assert refused(ec2.run_instances, **wrong) == "InvalidParameter"


# -- what becomes of instances --------------------------------------------------------------------


def test_stop_start_terminate(paper: Cloud) -> None:
    [machine] = running(paper)
    ec2, names = paper.client("ec2"), [machine.id]
    private, public = machine.private_address, machine.public_address
    assert refused(ec2.start_instances, InstanceIds=["i-0123456789abcdef0"]) == (
        "InvalidInstanceID.NotFound"
    )
    ec2.stop_instances(InstanceIds=names)
    reach(machine, "stopped")
    assert (machine.private_address, machine.public_address) == (private, "")
    assert refused(ec2.reboot_instances, InstanceIds=names) == "IncorrectInstanceState"
    ec2.start_instances(InstanceIds=names)
    reach(machine, "running")
    assert machine.private_address == private
    assert machine.public_address not in ("", public)
    for _ in range(2):
        ec2.terminate_instances(InstanceIds=names)
        reach(machine, "terminated")
    assert refused(ec2.start_instances, InstanceIds=names) == "IncorrectInstanceState"
    [found] = ec2.describe_instances(InstanceIds=names)["Reservations"][0]["Instances"]
    assert found["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert not paper.instances()


def test_what_is_pending_can_only_be_terminated(paper: Cloud) -> None:
    paper.faults.boot_delay(60, 60)
    [name] = launch(paper)
    ec2 = paper.client("ec2")
    assert refused(ec2.stop_instances, InstanceIds=[name]) == "IncorrectInstanceState"
    ec2.terminate_instances(InstanceIds=[name])
    reach(paper.machine(name), "terminated")


@pytest.mark.faults
def test_what_was_stopped_is_not_started_without_capacity(paper: Cloud) -> None:
    [machine] = running(paper)
    ec2, names = paper.client("ec2"), [machine.id]
    ec2.stop_instances(InstanceIds=names)
    reach(machine, "stopped")
    paper.faults.capacity(0)
    assert refused(ec2.start_instances, InstanceIds=names) == "InsufficientInstanceCapacity"
    assert machine.state == "stopped"
    paper.faults.clear()
    ec2.start_instances(InstanceIds=names)
    reach(machine, "running")


@pytest.mark.faults
def test_one_dies_while_it_is_pending(paper: Cloud) -> None:
    paper.faults.die_pending()
    first, second = (paper.machine(name) for name in launch(paper, 2))
    reach(first, "terminated")
    reach(second, "running")
    ec2 = paper.client("ec2")
    [found] = ec2.describe_instances(InstanceIds=[first.id])["Reservations"][0]["Instances"]
    assert found["StateReason"]["Code"] == "Server.InternalError"


@pytest.mark.faults
def test_a_spot_instance_is_interrupted() -> None:
    with lent(hosts=False, pace=600) as cloud:
        [spot] = running(cloud, InstanceMarketOptions={"MarketType": "spot"})
        [other] = running(cloud)
        with pytest.raises(ValueError, match="no spot instance"):
            cloud.interrupt(other.id)
        ec2 = cloud.client("ec2")
        assert refused(ec2.stop_instances, InstanceIds=[spot.id]) == "UnsupportedOperation"
        cloud.interrupt(spot.id)
        reach(spot, "terminated")
        assert spot.model.state_reason.code == "Server.SpotInstanceTermination"
        assert other.state == "running"
