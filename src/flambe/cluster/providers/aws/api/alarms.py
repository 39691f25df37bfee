"""CloudWatch alarms that terminate an instance whose processors are idle."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flambe.cluster.providers.aws.api.aws_session import AwsSession

PREFIX = "flambe-"
LOW = 2.0  # percent of all processors
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
MOST_HOURS = 168
BASIC, HOUR, DAY = 300, 3600, 86_400  # seconds; instances report their metrics every five minutes
BATCH = 100  # alarms that one call deletes at most


def alarm_name(instance_id: str) -> str:
    """Return the name of the alarm of an instance."""
    return f"{PREFIX}{instance_id}"


def alarm_request(region: str, cluster: str, instance_id: str, hours: float) -> dict[str, object]:
    """Return the parameters of PutMetricAlarm for an instance that is idle for so many hours."""
    seconds = max(hours * HOUR, 2 * BASIC)
    period = BASIC if seconds <= DAY else HOUR
    return {
        "AlarmName": alarm_name(instance_id),
        "AlarmDescription": f"Terminates a factory of the flambe cluster {cluster} that is idle",
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Statistic": "Average",
        "Dimensions": [{"Name": "InstanceId", "Value": instance_id}],
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": LOW,
        "Period": period,
        "EvaluationPeriods": math.ceil(seconds / period),
        "TreatMissingData": "notBreaching",
        "AlarmActions": [f"arn:aws:automate:{region}:ec2:terminate"],
    }


def put_alarm(session: AwsSession, cluster: str, instance_id: str, hours: float) -> None:
    """Create or replace the alarm of an instance."""
    request = alarm_request(session.region, cluster, instance_id, hours)
    session.cloudwatch.put_metric_alarm(**request)


def list_alarms(session: AwsSession) -> list[str]:
    """Return the names of all alarms of flambe in a region."""
    paginator = session.cloudwatch.get_paginator("describe_alarms")
    pages = paginator.paginate(AlarmNamePrefix=PREFIX)
    return [str(alarm["AlarmName"]) for page in pages for alarm in page["MetricAlarms"]]


def delete_alarms(session: AwsSession, names: Sequence[str]) -> None:
    """Delete alarms; those that do not exist are not an error."""
    # DeleteAlarms deletes none of them if one does not exist.
    existing = set(list_alarms(session))
    obsolete = [name for name in names if name in existing]
    for start in range(0, len(obsolete), BATCH):
        session.cloudwatch.delete_alarms(AlarmNames=obsolete[start : start + BATCH])
