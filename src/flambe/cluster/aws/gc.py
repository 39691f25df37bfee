"""Instances of flambe that nobody needs any more, and what they left: found by their tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from flambe.cluster.aws.ec2 import PURPOSE, Ec2, told


@dataclass(frozen=True)
class Found:
    """One cluster, as its tags tell it.

    Attributes
    ----------
    instances
        Their ids and states.
    hours
        The hours that they have run, all together.
    """

    region: str
    name: str
    creator: str
    instances: dict[str, str] = field(default_factory=dict)
    hours: float = 0.0


def clusters(ec2: Ec2, creator: str | None = None) -> list[Found]:
    """Return the clusters of flambe in a region, of one creator or of all."""
    tags = {} if creator is None else {"creator": creator}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in ec2.instances(**tags):
        known = {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}
        key = known.get("Cluster-Name", ""), known.get("creator", "")
        found.setdefault(key, []).append(one)
    return [
        Found(
            ec2.region,
            name,
            who,
            {one["InstanceId"]: one["State"]["Name"] for one in instances},
            sum(_hours(one) for one in instances),
        )
        for (name, who), instances in sorted(found.items())
    ]


def volumes(ec2: Ec2) -> list[str]:
    """Return the volumes that instances of flambe left behind."""
    filters = [
        {"Name": "tag:Purpose", "Values": [PURPOSE]},
        {"Name": "status", "Values": ["available"]},
    ]
    with told("find volumes"):
        pages = ec2.ec2.get_paginator("describe_volumes").paginate(Filters=filters)
        return [one["VolumeId"] for page in pages for one in page["Volumes"]]


def remove_volumes(ec2: Ec2, ids: list[str]) -> None:
    """Remove volumes."""
    for identity in ids:
        with told(f"remove the volume {identity}"):
            ec2.ec2.delete_volume(VolumeId=identity)


def _hours(one: dict[str, Any]) -> float:
    if one["State"]["Name"] != "running":
        return 0.0
    return float((datetime.now(timezone.utc) - one["LaunchTime"]).total_seconds()) / 3600
