"""CloudWatch: the limits of alarms, how data is judged, and what alarms do to instances."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import Cloud
from tests.cloud.alarms import judge
from tests.cloud.conftest import lent, reach, running, wait

pytestmark = pytest.mark.integration

TERMINATE = "arn:aws:automate:us-east-1:ec2:terminate"
STOP = "arn:aws:swf:us-east-1:123456789012:action/actions/AWS_EC2.InstanceId.Stop/1.0"
FAST = 1200  # an hour lasts three seconds


def alarm(instance: str, action: str = TERMINATE, **more: Any) -> dict[str, Any]:
    """Return the parameters of an alarm that acts after an hour below two percent."""
    return {
        "AlarmName": f"idle-{instance}",
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Dimensions": [{"Name": "InstanceId", "Value": instance}],
        "Statistic": "Average",
        "Period": 300,
        "EvaluationPeriods": 12,
        "Threshold": 2.0,
        "ComparisonOperator": "LessThanThreshold",
        "AlarmActions": [action],
        **more,
    }


def state(cloud: Cloud, instance: str) -> str:
    found = cloud.client("cloudwatch").describe_alarms(AlarmNames=[f"idle-{instance}"])
    return str(found["MetricAlarms"][0]["StateValue"])


# -- which may be made ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "periods"),
    [(300, 288), (60, 1440), (3600, 168), (86_400, 7), (10, 8640)],
)
def test_as_far_back_as_it_goes(paper: Cloud, period: int, periods: int) -> None:
    put = paper.client("cloudwatch").put_metric_alarm
    put(**alarm("i-1", Period=period, EvaluationPeriods=periods))
    with pytest.raises(ClientError, match=r"ValidationError.*cannot be checked across more than"):
        put(**alarm("i-1", Period=period, EvaluationPeriods=periods + 1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"AlarmActions": ["arn:aws:automate:None:ec2:terminate"]}, "Invalid arn syntax"),
        ({"AlarmActions": ["None"]}, "Invalid arn syntax"),
        ({"AlarmActions": ["arn:aws:automate:us-east-1:ec2:explode"]}, "Invalid arn syntax"),
        ({"AlarmActions": [TERMINATE.replace("us-east-1", "eu-west-1")]}, "Invalid region"),
        ({"Dimensions": []}, "Dimension InstanceId is required"),
        ({"Period": 45}, "any multiple of 60"),
    ],
)
def test_alarms_that_cannot_be(paper: Cloud, wrong: dict[str, Any], message: str) -> None:
    cloudwatch = paper.client("cloudwatch")
    with pytest.raises(ClientError, match=message):
        cloudwatch.put_metric_alarm(**alarm("i-1", **wrong))
    assert not cloudwatch.describe_alarms()["MetricAlarms"]


def test_a_new_alarm_has_no_data(paper: Cloud) -> None:
    paper.client("cloudwatch").put_metric_alarm(**alarm("i-1"))
    assert state(paper, "i-1") == "INSUFFICIENT_DATA"


# The tables of https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
SAME = ""


@pytest.mark.parametrize(
    ("need", "data", "missing", "ignore", "breaching", "not_breaching"),
    [
        (3, "0-X-X", "OK", "OK", "OK", "OK"),
        (3, "0----", "OK", "OK", "OK", "OK"),
        (3, "-----", "INSUFFICIENT_DATA", SAME, "ALARM", "OK"),
        (3, "0XX-X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (3, "--X--", "ALARM", SAME, "ALARM", "OK"),
        (3, "----X", SAME, SAME, "ALARM", "OK"),
        (3, "---X-", SAME, SAME, "ALARM", "OK"),
        (2, "0-X-X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (2, "00X0X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (2, "0-X--", "OK", "OK", "ALARM", "OK"),
        (2, "----0", "OK", "OK", "ALARM", "OK"),
        (2, "---X-", "ALARM", SAME, "ALARM", "OK"),
    ],
)
def test_how_data_is_judged(
    need: int, data: str, missing: str, ignore: str, breaching: str, not_breaching: str
) -> None:
    points = [{"0": False, "X": True, "-": None}[letter] for letter in data]
    assert judge(points, need, 3, "missing") == missing
    assert judge(points, need, 3, "ignore") == ignore
    assert judge(points, need, 3, "breaching") == breaching
    assert judge(points, need, 3, "notBreaching") == not_breaching


# -- and what they do -----------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "becomes"), [(TERMINATE, "terminated"), (STOP, "stopped")])
def test_an_idle_instance(action: str, becomes: str) -> None:
    with lent(hosts=False, pace=FAST) as cloud:
        idle, other = running(cloud, 2)
        cloud.client("cloudwatch").put_metric_alarm(**alarm(idle.id, action))
        reach(idle, becomes)
        assert other.state == "running"
        assert state(cloud, idle.id) == "ALARM"
        points = cloud.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/EC2",
            MetricName="CPUUtilization",
            Dimensions=[{"Name": "InstanceId", "Value": idle.id}],
            StartTime=cloud.clock.now() - 7200,
            EndTime=cloud.clock.now(),
            Period=300,
            Statistics=["Average"],
        )["Datapoints"]
        assert len(points) >= 12


def test_time_that_is_skipped(paper: Cloud) -> None:
    [machine] = running(paper)
    paper.client("cloudwatch").put_metric_alarm(**alarm(machine.id))
    wait(lambda: paper.monitor.watches(machine))
    paper.advance(1800)
    wait(lambda: len(paper.monitor.points(machine)) == 6)
    paper.monitor.look()
    assert (machine.state, state(paper, machine.id)) == ("running", "INSUFFICIENT_DATA")
    paper.advance(2100)
    reach(machine, "terminated")


@pytest.mark.root
def test_a_busy_instance_and_an_idle_one() -> None:
    with lent(pace=FAST) as cloud:
        busy, idle = running(cloud, 2)
        cloud.host(busy.id).run("sh", "-c", "setsid sh -c 'while :; do :; done' > /dev/null 2>&1 &")
        for machine in (busy, idle):
            # A host that has just booted has been busy: that is in the first figure.
            cloud.client("cloudwatch").put_metric_alarm(**alarm(machine.id, Threshold=5.0))
        reach(idle, "terminated")
        assert idle.guest is not None and not idle.guest.alive
        wait(lambda: state(cloud, busy.id) == "OK")
        assert busy.state == "running"
