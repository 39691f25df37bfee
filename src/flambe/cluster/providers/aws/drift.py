"""Drift: where running instances differ from what the cluster file says now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flambe.cluster.providers.aws.api.aws_tags import FACTORY, READY_WITHIN, VOLUME
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.aws_config import AwsConfig


@dataclass(frozen=True)
class Difference:
    """A keyword, the value that an instance was launched with, and the one in the file."""

    keyword: str
    actual: str
    expected: str


def format_drift(config: AwsConfig, instances: Mapping[str, Instance]) -> list[str]:
    """Return a sentence for each keyword whose value differs on some instances.

    Timeouts are not among them: they are updated on running hosts.
    """
    hosts: dict[Difference, list[str]] = {}
    for host_name, instance in instances.items():
        for difference in find_drift(config, host_name, instance):
            hosts.setdefault(difference, []).append(host_name)
    return [
        f"{', '.join(names)}: {each.keyword} is {each.actual}, but the file says {each.expected}; "
        f"to apply it, run flambe down {config.name} first"
        for each, names in hosts.items()
    ]


def find_drift(config: AwsConfig, host_name: str, instance: Instance) -> Iterator[Difference]:
    """Yield the differences of one instance."""
    for keyword, actual, expected in _compared(config, host_name, instance):
        if actual != expected:
            yield Difference(keyword, _yaml(actual), _yaml(expected))


def _compared(
    config: AwsConfig, host_name: str, instance: Instance
) -> Iterator[tuple[str, object, object]]:
    """Yield each keyword that counts for an instance, its value there, and that of the file."""
    role = config.role_of(host_name)
    is_factory = role.role == FACTORY
    type_keyword = "factories_type" if is_factory else "orchestrator_type"
    yield type_keyword, instance.type, role.instance_type
    yield "key_name", instance.key_name, config.key_name
    yield "dedicated", instance.dedicated, config.dedicated
    if instance.is_running:  # it has no public address before
        yield "use_public", bool(instance.public_ip), config.use_public
    if role.ami is not None:
        yield f"{role.label}_ami", instance.image, role.ami
    yield "instance_profile", instance.profile or "none", config.instance_profile or "none"
    if not instance.is_settled and READY_WITHIN in instance.tags:
        yield "provisioning_timeout", instance.tags[READY_WITHIN], config.ready_within
    if is_factory:
        yield "spot", instance.spot, config.factory.spot
    if VOLUME in instance.tags:
        yield "volume", instance.tags[VOLUME], config.volume
    if instance.subnet not in config.subnets:
        yield "subnet_id", instance.subnet, " or ".join(config.subnets)
    if config.security_group not in instance.security_groups:
        yield "security_group", ", ".join(sorted(instance.security_groups)), config.security_group
    for name, value in config.tags.items():
        yield f"the tag {name}", instance.tags.get(name, "missing"), str(value)


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
