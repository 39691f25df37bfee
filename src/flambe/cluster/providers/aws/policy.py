"""The least that a user of AWS must be allowed, as an IAM policy."""

from __future__ import annotations

from typing import Any

from flambe.cluster.providers.aws.alarms import PREFIX
from flambe.cluster.providers.aws.instance import PURPOSE

# What has no resource that could be named: https://docs.aws.amazon.com/service-authorization/
LOOKING = (
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeVolumes",
    "cloudwatch:DescribeAlarms",
    "servicequotas:GetServiceQuota",
    "ssm:GetParameter",
)
# On instances that are flambe's only.
OURS = ("ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances")
ALARMS = ("cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms")


def policy() -> dict[str, Any]:
    """Return the policy."""
    ours = {"StringEquals": {"aws:ResourceTag/Purpose": PURPOSE}}
    born = {"StringEquals": {"aws:RequestTag/Purpose": PURPOSE}}
    made = ["arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:*:*:volume/*"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "Look", "Effect": "Allow", "Action": list(LOOKING), "Resource": "*"},
            {
                "Sid": "LaunchWithTheTag",
                "Effect": "Allow",
                "Action": "ec2:RunInstances",
                "Resource": made,
                "Condition": born,
            },
            {
                "Sid": "LaunchFromWhatThereIs",
                "Effect": "Allow",
                "Action": "ec2:RunInstances",
                "Resource": [
                    "arn:aws:ec2:*::image/*",
                    "arn:aws:ec2:*:*:key-pair/*",
                    "arn:aws:ec2:*:*:network-interface/*",
                    "arn:aws:ec2:*:*:security-group/*",
                    "arn:aws:ec2:*:*:spot-instances-request/*",
                    "arn:aws:ec2:*:*:subnet/*",
                ],
            },
            {
                "Sid": "TagWhatIsLaunched",
                "Effect": "Allow",
                "Action": "ec2:CreateTags",
                "Resource": made,
                "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
            },
            {
                "Sid": "TagOurs",
                "Effect": "Allow",
                "Action": "ec2:CreateTags",
                "Resource": made,
                "Condition": ours,
            },
            {
                "Sid": "EndOurs",
                "Effect": "Allow",
                "Action": list(OURS),
                "Resource": "arn:aws:ec2:*:*:instance/*",
                "Condition": ours,
            },
            {
                "Sid": "RemoveOurVolumes",
                "Effect": "Allow",
                "Action": "ec2:DeleteVolume",
                "Resource": "arn:aws:ec2:*:*:volume/*",
                "Condition": ours,
            },
            {
                "Sid": "OurAlarms",
                "Effect": "Allow",
                "Action": list(ALARMS),
                "Resource": f"arn:aws:cloudwatch:*:*:alarm:{PREFIX}*",
            },
            {
                # Once in an account: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
                # UsingAlarmActions.html
                "Sid": "LetAlarmsAndSpotAct",
                "Effect": "Allow",
                "Action": "iam:CreateServiceLinkedRole",
                "Resource": "arn:aws:iam::*:role/aws-service-role/*",
                "Condition": {
                    "StringLike": {
                        "iam:AWSServiceName": ["events.amazonaws.com", "spot.amazonaws.com"]
                    }
                },
            },
        ],
    }
