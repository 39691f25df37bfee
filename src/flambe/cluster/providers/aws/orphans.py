"""What flambe has in a region, by its tags, and what of it is orphaned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flambe.cluster.providers.aws.api import alarms, volumes
from flambe.cluster.providers.aws.api.aws_errors import translate_errors
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.aws_tags import ORCHESTRATOR
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.api.instances import Instances

GRACE = 0.25  # hours: instances that were never ready terminate themselves before


@dataclass(frozen=True)
class Resource:
    """An instance, a volume or an alarm of flambe.

    Attributes
    ----------
    kind, id
        ``instance``, ``volume`` or ``alarm``, and its id.
    region, cluster, creator
        Where it is, and to which cluster it belongs.
    summary
        Its role, type and state.
    hours
        For how long it has been running; None if it is not.
    orphaned
        Why it is orphaned; empty if it may be needed.
    """

    kind: str
    id: str
    region: str
    cluster: str = ""
    creator: str = ""
    summary: str = ""
    hours: float | None = None
    orphaned: str = ""


def list_resources(session: AwsSession) -> list[Resource]:
    """Return everything that flambe has in a region, of every creator."""
    instances = Instances(session).list_live({})
    resources = [_instance(session.region, each, instances) for each in instances]
    resources.sort(key=lambda each: (each.creator, each.cluster, each.summary))
    return [*resources, *_volumes(session), *_alarms(session, {each.id for each in instances})]


def remove(session: AwsSession, resources: Sequence[Resource]) -> None:
    """Remove resources.

    Raises
    ------
    RunError
        If AWS refuses.
    """
    Instances(session).terminate([each.id for each in resources if each.kind == "instance"])
    for resource in resources:
        if resource.kind == "volume":
            volumes.delete_volume(session, resource.id)
    names = [each.id for each in resources if each.kind == "alarm"]
    if names:
        with translate_errors("remove alarms"):
            alarms.delete_alarms(session, names)


def _instance(region: str, instance: Instance, others: Sequence[Instance]) -> Resource:
    return Resource(
        "instance",
        instance.id,
        region,
        instance.cluster,
        instance.creator,
        f"{instance.role.lower()}, {instance.type}, {instance.state}",
        instance.age / 3600 if instance.is_running else None,
        _why_orphaned(instance, others),
    )


def _why_orphaned(instance: Instance, others: Sequence[Instance]) -> str:
    """Return why an instance is orphaned: it was never ready, or has lost its orchestrator."""
    if instance.age / 3600 < instance.ready_within + GRACE:
        return ""
    if not instance.is_settled:
        return f"it was not ready within {instance.ready_within:g} h"
    for other in others:
        same_cluster = (other.cluster, other.creator) == (instance.cluster, instance.creator)
        if same_cluster and other.role == ORCHESTRATOR:
            return ""
    return "the orchestrator of its cluster is gone"


def _volumes(session: AwsSession) -> list[Resource]:
    return [
        Resource(
            "volume",
            volume.id,
            session.region,
            volume.tags.get("Cluster-Name", ""),
            volume.tags.get("creator", ""),
            f"{volume.size} GB",
            orphaned="it is attached to no instance",
        )
        for volume in volumes.list_detached_volumes(session)
    ]


def _alarms(session: AwsSession, instance_ids: Collection[str]) -> list[Resource]:
    """Return the alarms of instances that are gone."""
    with translate_errors("find alarms"):
        names = alarms.list_alarms(session)
    expected = {alarms.alarm_name(instance_id) for instance_id in instance_ids}
    return [
        Resource("alarm", name, session.region, orphaned="its instance is gone")
        for name in names
        if name not in expected
    ]
