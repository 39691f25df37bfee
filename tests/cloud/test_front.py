"""The faults that a test plans, what there is in the cloud, and how it is reached."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.cloud import Cloud, CloudError
from tests.cloud.conftest import launch, lent, refused, request, running, wait

pytestmark = pytest.mark.integration

LAUNCHES = "RunInstances"

# -- what goes wrong with calls -------------------------------------------------------------------


@pytest.mark.faults
def test_a_lost_reply_and_the_same_token(paper: Cloud) -> None:
    paper.faults.drop_reply(LAUNCHES)
    once = paper.client("ec2")
    with pytest.raises(ConnectionClosedError):
        once.run_instances(**request(paper, 2, ClientToken="t"))
    assert len(paper.machines) == 2  # it was done nevertheless
    assert launch(paper, 2, ClientToken="t") == list(paper.machines)
    paper.faults.drop_reply(LAUNCHES)
    patient = paper.client("ec2", attempts=3)  # which sends a token of its own, the same twice
    patient.run_instances(**request(paper))
    assert len(paper.machines) == 3
    assert [call.outcome for call in paper.calls.of(LAUNCHES)] == ["dropped", "ok"] * 2


@pytest.mark.faults
def test_throttled_and_broken(paper: Cloud) -> None:
    once, patient = paper.client("ec2"), paper.client("ec2", attempts=4)
    paper.faults.throttle("DescribeInstances", times=2)
    assert refused(once.describe_instances) == "RequestLimitExceeded"
    patient.describe_instances()
    paper.faults.fail("DescribeInstances", times=2)
    assert refused(once.describe_instances) == "InternalError"
    patient.describe_instances()
    assert paper.faults.counts == {"throttle": 2, "fail": 2}
    outcomes = [call.outcome for call in paper.calls.of("DescribeInstances")]
    assert outcomes == ["RequestLimitExceeded"] * 2 + ["ok"] + ["InternalError"] * 2 + ["ok"]
    paper.faults.throttle()
    assert refused(paper.client("cloudwatch").describe_alarms) in (
        "Throttling",
        "ThrottlingException",
    )
    paper.faults.throttle()
    assert refused(paper.client("sts").get_caller_identity) == "Throttling"


@pytest.mark.faults
def test_an_answer_that_takes_longer_than_a_client_waits(paper: Cloud) -> None:
    paper.faults.stall(LAUNCHES, seconds=1.5)
    hasty = paper.client("ec2", attempts=2, read_timeout=0.5)
    hasty.run_instances(**request(paper, ClientToken="t"))  # by its second attempt
    wait(lambda: [call.outcome for call in paper.calls.of(LAUNCHES)] == ["ok", "ok"])
    assert len(paper.machines) == 1  # by one token


@pytest.mark.faults
def test_a_new_instance_is_not_seen_at_once(paper: Cloud) -> None:
    [old] = running(paper)
    paper.faults.describe_lag(600)
    [name] = launch(paper)
    ec2 = paper.client("ec2")
    seen = ec2.describe_instances()["Reservations"]
    assert [one["Instances"][0]["InstanceId"] for one in seen] == [old.id]
    for call in (ec2.describe_instances, ec2.terminate_instances):
        assert refused(call, InstanceIds=[name]) == "InvalidInstanceID.NotFound"
    paper.faults.describe_lag(0.1)
    time.sleep(0.1)
    assert ec2.describe_instances(InstanceIds=[name])["Reservations"]


@pytest.mark.faults
def test_credentials_that_expired(paper: Cloud) -> None:
    paper.faults.expire_credentials()
    assert refused(paper.client("ec2").describe_instances) == "RequestExpired"
    assert refused(paper.client("sts").get_caller_identity) == "ExpiredToken"
    name = {"Name": "/aws/service/x"}
    assert refused(paper.client("ssm").get_parameter, **name) == "ExpiredTokenException"
    paper.faults.expire_credentials(False)
    paper.client("ec2").describe_instances()


@pytest.mark.faults
def test_actions_that_a_policy_denies(paper: Cloud) -> None:
    allowed = {"Effect": "Allow", "Action": ["ec2:Describe*", "sts:*"], "Resource": "*"}
    paper.faults.policy({"Version": "2012-10-17", "Statement": [allowed]})
    ec2 = paper.client("ec2")
    ec2.describe_instances()
    with pytest.raises(ClientError, match=r"UnauthorizedOperation.*ec2:RunInstances"):
        ec2.run_instances(**request(paper))
    # Whether one may is looked at first, and that is what DryRun tells.
    assert refused(ec2.run_instances, **request(paper, DryRun=True)) == "UnauthorizedOperation"
    ssm = paper.client("ssm")
    assert refused(ssm.get_parameter, Name="/aws/service/x") == "AccessDeniedException"
    paper.faults.deny("sts:GetCallerIdentity", "ec2:TerminateInstances")
    paper.client("sts").get_caller_identity()  # which cannot be denied
    [name] = launch(paper)
    assert refused(ec2.terminate_instances, InstanceIds=[name]) == "UnauthorizedOperation"
    assert paper.faults.counts["denied"] == 4


# -- what there is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "owner"),
    [
        (
            "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
            "099720109477",
        ),
        (
            "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/"
            "ami-id",
            "898082745236",
        ),
        ("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64", "137112412989"),
    ],
)
def test_public_parameters_name_images(paper: Cloud, parameter: str, owner: str) -> None:
    ssm, ec2 = paper.client("ssm"), paper.client("ec2")
    name = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    [image] = ec2.describe_images(ImageIds=[name])["Images"]
    assert (image["OwnerId"], image["Architecture"], image["State"]) == (
        owner,
        "x86_64",
        "available",
    )
    assert launch(paper, ImageId=name)


def test_what_is_prepared(paper: Cloud) -> None:
    ec2, prepared = paper.client("ec2"), paper.prepared
    subnets = ec2.describe_subnets()["Subnets"]
    assert {one["AvailabilityZone"]: one["SubnetId"] for one in subnets} == prepared.subnets
    assert all(one["MapPublicIpOnLaunch"] and one["DefaultForAz"] for one in subnets)
    [group] = ec2.describe_security_groups(GroupIds=[prepared.security_group])["SecurityGroups"]
    assert group["VpcId"] == prepared.vpc
    assert prepared.key.read_text("utf-8").startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    reply = ec2.run_instances(
        ImageId=prepared.images["deeplearning"], InstanceType="g5.xlarge", MinCount=1, MaxCount=1
    )
    assert reply["Instances"][0]["SubnetId"] == prepared.subnet  # of the default network


def test_calls_are_logged(paper: Cloud) -> None:
    before = time.time()
    paper.client("ec2").describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["running"]}]
    )
    paper.client("ec2", region_name="eu-west-1").describe_regions()
    first, second = paper.calls
    assert (first.name, first.region, first.outcome) == (
        "ec2:DescribeInstances",
        "us-east-1",
        "ok",
    )
    assert first.parameters["Filters"][0]["Values"] == ["running"]
    assert before <= first.at <= time.time()
    assert (second.action, second.region) == ("DescribeRegions", "eu-west-1")
    assert paper.calls.count("DescribeInstances") == 1
    assert paper.calls.count() == 2


def test_other_processes_come_here(paper: Cloud) -> None:
    look = "import boto3; print(boto3.client('ec2').describe_key_pairs()['KeyPairs'][0]['KeyName'])"
    done = subprocess.run(
        [sys.executable, "-c", look],
        env=paper.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "tester\n"


def test_the_control_address(paper: Cloud) -> None:
    def ask(path: str, **arguments: Any) -> Any:
        data = json.dumps(arguments).encode()
        with urllib.request.urlopen(f"{paper.url}/_cloud/{path}", data=data) as reply:
            return json.load(reply)

    ask("faults/capacity", left=0)
    ec2 = paper.client("ec2")
    assert refused(ec2.run_instances, **request(paper)) == "InsufficientInstanceCapacity"
    assert ask("faults/clear") == {"capacity": 1}
    [name] = launch(paper)
    assert ask("instances")[0]["id"] == name
    assert [call["action"] for call in ask("calls")] == [LAUNCHES] * 2
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask("faults/_count")


def test_there_is_one_cloud_in_a_process(paper: Cloud) -> None:
    with pytest.raises(CloudError, match="already"):
        Cloud(hosts=False).up()
    url = paper.url
    paper.down()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)
    with lent(hosts=False) as fresh:
        assert not fresh.client("ec2").describe_instances()["Reservations"]
