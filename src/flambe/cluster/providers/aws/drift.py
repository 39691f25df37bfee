"""What the file says, and the instances that run do not have: it is named, not passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flambe.cluster.providers.aws.instance import READY_WITHIN, is_settled, tags_of
from flambe.cluster.providers.aws.request import FACTORY, VOLUME, role_of

if TYPE_CHECKING:
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster


def told(cluster: AWSCluster, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each parameter that instances of a cluster have otherwise.

    Timeouts are none of them: they are set anew on hosts that run.
    """
    hosts: dict[tuple[str, str, str], list[str]] = {}
    for name, one in found.items():
        for difference in _differences(cluster, name, one):
            hosts.setdefault(difference, []).append(name)
    return [
        f"AWS: {', '.join(names)}: {what} is {there}, and the file says {wanted}; "
        f"flambe down {cluster.name} first, to have it so"
        for (what, there, wanted), names in hosts.items()
    ]


def _differences(
    cluster: AWSCluster, name: str, one: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield what an instance has otherwise: the parameter, what is there, what is wanted."""
    role = role_of(name)
    is_factory, ami = role == FACTORY, cluster.ami(role)
    tags = tags_of(one)
    placed = one.get("Placement", {}).get("Tenancy", "default") == "dedicated"
    cards = one.get("NetworkInterfaces", ())
    told = [one.get("SecurityGroups", ()), *(card.get("Groups", ()) for card in cards)]
    groups = {group["GroupId"] for part in told for group in part}
    there: list[tuple[str, Any, Any]] = [
        (
            "factories_type" if is_factory else "orchestrator_type",
            one["InstanceType"],
            cluster.kind(role),
        ),
        ("key_name", one.get("KeyName", ""), cluster.key_name),
        ("dedicated", placed, cluster.dedicated),
        ("use_public", bool(one.get("PublicIpAddress")), cluster.use_public),
    ]
    if one["State"]["Name"] != "running":
        there.pop()  # the address comes with the start
    if ami is not None:
        there.append((f"{role.lower()}_ami", one["ImageId"], ami))
    profile = str(one.get("IamInstanceProfile", {}).get("Arn", "/none")).rpartition("/")[2]
    there.append(("instance_profile", profile, cluster.instance_profile or "none"))
    if not is_settled(one) and READY_WITHIN in tags:
        within = f"{cluster.provisioning_timeout:g}"
        there.append(("provisioning_timeout", tags[READY_WITHIN], within))
    if is_factory:
        there.append(("spot", one.get("InstanceLifecycle") == "spot", cluster.spot))
    if VOLUME in tags:
        there.append(("volume", tags[VOLUME], f"{cluster.volume_size:g} GB {cluster.volume_type}"))
    if one.get("SubnetId") not in cluster.subnets:
        there.append(("subnet_id", one.get("SubnetId"), " or ".join(cluster.subnets)))
    if cluster.security_group not in groups:
        there.append(("security_group", ", ".join(sorted(groups)), cluster.security_group))
    for key, value in cluster.tags.items():
        there.append((f"the tag {key}", tags.get(key, "not there"), str(value)))
    for what, is_there, wanted in there:
        if is_there != wanted:
            yield what, _shown(is_there), _shown(wanted)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
