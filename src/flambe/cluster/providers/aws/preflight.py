"""What would make a launch fail, found before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flambe.cluster.providers.aws import key_pair, user_data
from flambe.cluster.providers.aws.api.aws_errors import code_of, explain
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.aws_tags import FACTORY
from flambe.cluster.providers.aws.api.instance_types import OLD_GPU_FAMILIES, family
from flambe.cluster.providers.aws.api.instances import NO_CAPACITY
from flambe.cluster.providers.aws.api.quotas import check_quota, quota_code
from flambe.cluster.providers.aws.api.security_groups import check_security_group
from flambe.cluster.providers.aws.aws_config import RoleConfig
from flambe.cluster.providers.aws.fleet import Fleet
from flambe.cluster.providers.aws.request import LaunchRequests


def check(fleet: Fleet, requests: LaunchRequests, counts: Sequence[tuple[RoleConfig, int]]) -> None:
    """Check that a launch would work, as far as that can be known without one.

    Parameters
    ----------
    fleet, requests
        What is launched.
    counts
        How many instances of each role.

    Raises
    ------
    ConfigError, RunError
        If it would not: because of the security group, a permission, an image, a key or a quota.
    """
    config, session, notify = fleet.config, fleet.session, fleet.notify
    factory = config.factory
    has_old_gpu = family(factory.instance_type) in OLD_GPU_FAMILIES and factory.ami is None
    if has_old_gpu and any(role.role == FACTORY for role, _ in counts):
        notify(
            "warning: AWS: current drivers and PyTorch builds do not support the GPUs of "
            f"{factory.instance_type}: trials may find none. Choose a newer type, such as "
            "g5.xlarge, or a factory_ami that supports them"
        )
    key_pair.check(config, session, notify)
    outside = config.use_public
    check_security_group(session, config.security_group, notify, from_outside=outside)
    key = user_data.HostKey.new()
    types_by_quota: dict[str, list[str]] = {}
    for role, count in counts:
        attempts = [
            requests.build(role, count, key, subnet, "preflight") for subnet in config.subnets
        ]
        dry_run(session, attempts, f"{count} x {role.label}")
        if code := quota_code(role.instance_type, spot=role.spot):
            types_by_quota.setdefault(code, []).extend([role.instance_type] * count)
    for code, names in types_by_quota.items():
        check_quota(session, requests.types, code, names, notify)


def dry_run(session: AwsSession, requests: Sequence[Mapping[str, object]], summary: str) -> None:
    """Ask AWS whether it would launch, in one of several subnets; nothing is launched.

    Raises
    ------
    RunError
        If it would not: with the action that is not allowed, or what does not exist.
    """
    refusal: Exception | None = None
    for request in requests:
        try:
            session.ec2.run_instances(**request, DryRun=True)
        except Exception as error:
            if code_of(error) == "DryRunOperation":
                return
            refusal = refusal or error
            if code_of(error) not in NO_CAPACITY:
                break
    if refusal is not None:
        raise explain(f"launch {summary}", refusal) from refusal
