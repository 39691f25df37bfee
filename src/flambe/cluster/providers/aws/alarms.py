"""Alarms of CloudWatch: a second line that terminates factories, for those who ask for it.

An alarm sees CPUs only, and neither GPUs nor leases; and it looks back a week at most. It is for a
host that hangs, and whose reaper hangs with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flambe.cluster.providers.aws.aws_errors import is_of_aws, reason
from flambe.cluster.providers.aws.ec2 import Ec2

if TYPE_CHECKING:
    from flambe.cluster.cluster_host import ClusterHost
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster

PREFIX = "flambe-"
MARK = "alarm"
LOW = 2.0  # percent of all processors
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
MOST_HOURS = 168
BASIC, HOUR, DAY = 300, 3600, 86_400  # seconds; instances tell their figures every five minutes
AT_ONCE = 100  # alarms that are removed by one call


def request(region: str, cluster: str, identity: str, hours: float) -> dict[str, Any]:
    """Return the parameters of the alarm of an instance that is idle for so many hours."""
    seconds = max(hours * HOUR, 2 * BASIC)
    period = BASIC if seconds <= DAY else HOUR
    return {
        "AlarmName": f"{PREFIX}{identity}",
        "AlarmDescription": f"Terminates a factory of the flambe cluster {cluster} that is idle",
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Statistic": "Average",
        "Dimensions": [{"Name": "InstanceId", "Value": identity}],
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": LOW,
        "Period": period,
        "EvaluationPeriods": math.ceil(seconds / period),
        "TreatMissingData": "notBreaching",
        "AlarmActions": [f"arn:aws:automate:{region}:ec2:terminate"],
    }


class Alarms:
    """The alarms of the factories of one cluster.

    Parameters
    ----------
    cluster
        The cluster.
    """

    def __init__(self, cluster: AWSCluster) -> None:
        self.cluster = cluster

    def arm(self, members: Sequence[ClusterHost]) -> None:
        """Give each factory its alarm, if they are to have some; a refusal is a warning."""
        cluster, hours = self.cluster, self.cluster.factories_timeout
        wanted = hours if cluster.factories_alarm and hours >= 0 else None
        lacking = [
            member
            for member in members
            if not member.is_orchestrator and member.report["marks"].get(MARK) != wanted
        ]
        if not lacking:
            return
        try:
            for member in lacking:
                identity = cluster.instances[member.machine.name]["InstanceId"]
                if wanted is None:
                    remove(cluster.ec2, [f"{PREFIX}{identity}"])
                else:
                    given = request(cluster.ec2.region, cluster.name, identity, wanted)
                    cluster.journal.write("alarm", id=identity)
                    cluster.ec2.cloudwatch.put_metric_alarm(**given)
                member.mark(cluster.name, MARK, wanted)
        except Exception as error:
            if not is_of_aws(error):
                raise
            cluster.observer.note(f"warning: AWS: no alarms for the factories: {reason(error)}")

    def remove(self, ids: Sequence[str]) -> None:
        """Remove the alarms of instances; a refusal is a warning, where there are to be some."""
        try:
            remove(self.cluster.ec2, [f"{PREFIX}{identity}" for identity in ids])
        except Exception as error:
            if not is_of_aws(error):
                raise
            if self.cluster.factories_alarm:
                self.cluster.observer.note(f"warning: AWS: alarms are left: {reason(error)}")


def remove(ec2: Ec2, names: Sequence[str]) -> None:
    """Remove alarms; those that are not there are no error."""
    # A name that is not there would keep the others from being removed.
    there = set(found(ec2))
    wanted = [name for name in names if name in there]
    for start in range(0, len(wanted), AT_ONCE):
        ec2.cloudwatch.delete_alarms(AlarmNames=wanted[start : start + AT_ONCE])


def found(ec2: Ec2) -> Iterator[str]:
    """Yield the names of all alarms of flambe in a region."""
    pages = ec2.cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=PREFIX)
    for page in pages:
        for alarm in page["MetricAlarms"]:
            yield str(alarm["AlarmName"])
