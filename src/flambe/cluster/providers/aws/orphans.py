"""What is flambe's in a region, by its tags, and what of it nobody needs any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws import alarms
from flambe.cluster.providers.aws.aws_errors import translated
from flambe.cluster.providers.aws.ec2 import Ec2
from flambe.cluster.providers.aws.instance import (
    PURPOSE,
    READY_WITHIN,
    RUNNING,
    age,
    is_settled,
    state,
    tags_of,
)

SPARE = 0.25  # hours: an instance that was never ready ends by itself; this is later


@dataclass(frozen=True)
class Found:
    """An instance, a volume or an alarm of flambe.

    Attributes
    ----------
    kind, identity
        ``instance``, ``volume`` or ``alarm``, and its id.
    region, cluster, creator
        Where, and whose.
    what
        Its role and state, for people.
    hours
        For how long it has run; None of what does not.
    why
        Why nobody needs it; empty, if it may be needed.
    """

    kind: str
    identity: str
    region: str
    cluster: str = ""
    creator: str = ""
    what: str = ""
    hours: float | None = None
    why: str = ""


def look(ec2: Ec2) -> list[Found]:
    """Return all that is flambe's in a region, of every creator."""
    instances = ec2.instances({})
    found = [_instance(ec2.region, one, instances) for one in instances]
    found.sort(key=lambda one: (one.creator, one.cluster, one.what))
    there = {one.identity for one in found}
    return [*found, *_volumes(ec2), *_alarms(ec2, there)]


def remove(ec2: Ec2, found: Sequence[Found]) -> None:
    """Remove what was found.

    Raises
    ------
    RunError
        If AWS refuses.
    """
    ec2.terminate([one.identity for one in found if one.kind == "instance"])
    for one in found:
        if one.kind == "volume":
            with translated(f"remove the volume {one.identity}"):
                ec2.ec2.delete_volume(VolumeId=one.identity)
    names = [one.identity for one in found if one.kind == "alarm"]
    if names:
        with translated("remove alarms"):
            alarms.remove(ec2, names)


def _instance(region: str, one: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> Found:
    tags = tags_of(one)
    return Found(
        "instance",
        one["InstanceId"],
        region,
        tags.get("Cluster-Name", ""),
        tags.get("creator", ""),
        f"{tags.get('Role', '').lower()}, {one['InstanceType']}, {state(one)}",
        age(one) / 3600 if state(one) == RUNNING else None,
        _why(one, tags, others),
    )


def _why(one: Mapping[str, Any], tags: Mapping[str, str], others: Sequence[Any]) -> str:
    """Return why nobody needs an instance: it was never ready, or has lost its orchestrator."""
    limit = float(tags.get(READY_WITHIN, "1")) + SPARE
    hours = age(one) / 3600
    if hours < limit:
        return ""
    if not is_settled(one):
        return f"it was not ready within {limit - SPARE:g} h"
    mine = (tags.get("Cluster-Name"), tags.get("creator"))
    for other in map(tags_of, others):
        if other.get("Role") == "Orchestrator" and mine == (
            other.get("Cluster-Name"),
            other.get("creator"),
        ):
            return ""
    return "the orchestrator of its cluster is gone"


def _volumes(ec2: Ec2) -> list[Found]:
    """Return the volumes that instances of flambe left behind."""
    filters = [
        {"Name": "tag:Purpose", "Values": [PURPOSE]},
        {"Name": "status", "Values": ["available"]},
    ]
    with translated("find volumes"):
        pages = ec2.ec2.get_paginator("describe_volumes").paginate(Filters=filters)
        volumes = [one for page in pages for one in page["Volumes"]]
    return [
        Found(
            "volume",
            one["VolumeId"],
            ec2.region,
            tags_of(one).get("Cluster-Name", ""),
            tags_of(one).get("creator", ""),
            f"{one['Size']} GB",
            why="it belongs to no instance any more",
        )
        for one in volumes
    ]


def _alarms(ec2: Ec2, there: set[str]) -> list[Found]:
    """Return the alarms of instances that are gone."""
    with translated("find alarms"):
        every = list(alarms.found(ec2))
    names = [name for name in every if name.removeprefix(alarms.PREFIX) not in there]
    return [Found("alarm", name, ec2.region, why="its instance is gone") for name in names]
