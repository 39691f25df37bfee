"""Launching instances: both roles at the same time, each of them completely or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from flambe.cluster.providers.aws import preflight, user_data
from flambe.cluster.providers.aws.api.aws_errors import code_of, explain, may_have_happened
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.api.instances import NO_CAPACITY
from flambe.cluster.providers.aws.aws_config import AwsConfig, RoleConfig
from flambe.cluster.providers.aws.fleet import Fleet
from flambe.cluster.providers.aws.request import LaunchRequests, describe_launch
from flambe.cluster.providers.aws.rollback import Changes
from flambe.errors import FlambeError, RunError


def launch(
    fleet: Fleet, missing_hosts: Sequence[str], existing: Sequence[Instance], changes: Changes
) -> list[str]:
    """Launch instances for hosts; return their ids.

    Parameters
    ----------
    fleet
        The cluster that they belong to.
    missing_hosts
        The names of the hosts.
    existing
        The instances that the cluster has.
    changes
        Gets the instances that this call itself launched, as soon as it has; another client may
        have launched the same ones.

    Raises
    ------
    RunError, ConfigError
        If AWS would refuse, which is checked first, or does.
    """
    counts = fleet.config.role_counts(missing_hosts)
    if not counts:
        return []
    fleet.config.check()
    requests = LaunchRequests(fleet.config, fleet.session)
    for role, count in counts:
        summary = describe_launch(fleet.config, fleet.session.region, role, count)
        fleet.notify(f"AWS: {summary}")
    preflight.check(fleet, requests, counts)
    with ThreadPoolExecutor() as pool:
        launches = [
            pool.submit(_launch_role, fleet, requests, role, count, existing, changes)
            for role, count in counts
        ]
        try:
            wait(launches)
        except KeyboardInterrupt:
            # A request on its way to AWS cannot be called back, only undone when it is answered.
            changes.is_cancelled.set()
            fleet.notify("AWS: waiting for the answer to a launch, to undo it")
            wait(launches)
            raise
    errors = [error for each in launches if (error := each.exception())]
    if errors:
        raise errors[0] if len({str(error) for error in errors}) == 1 else _join(errors)
    return [instance_id for each in launches for instance_id in each.result()]


def _join(errors: Sequence[BaseException]) -> BaseException:
    unexpected = [error for error in errors if not isinstance(error, FlambeError)]
    return unexpected[0] if unexpected else RunError("\n".join(map(str, errors)))


def _launch_role(
    fleet: Fleet,
    requests: LaunchRequests,
    role: RoleConfig,
    count: int,
    existing: Sequence[Instance],
    changes: Changes,
) -> list[str]:
    """Launch the instances of one role, in the first zone that has the capacity."""
    key = user_data.HostKey.new()
    action = f"launch {count} x {role.label}"
    last_error: Exception | None = None
    for subnet in fleet.config.subnets:
        token = _client_token(fleet.config, role, count, subnet, existing)
        request = requests.build(role, count, key, subnet, token)
        fleet.audit_log.write("launch", role=role.role, count=count, subnet=subnet, token=token)
        try:
            ids, is_ours = fleet.instances.launch(request, token, changes.is_cancelled.is_set)
        except Exception as error:
            if code_of(error) not in NO_CAPACITY:
                if may_have_happened(error):
                    changes.unanswered.append(key.public)
                raise explain(action, error) from error
            fleet.notify(f"AWS: no capacity in the zone of {subnet}")
            last_error = error
            continue
        changes.created += ids if is_ours else []
        fleet.audit_log.write("launched", role=role.role, ids=ids)
        return ids
    assert last_error is not None
    raise explain(f"{action} in any of the subnets", last_error) from last_error


def _client_token(
    config: AwsConfig, role: RoleConfig, count: int, subnet: str, existing: Sequence[Instance]
) -> str:
    """Return what identifies a launch: the same for every client that needs the same one.

    Of two laptops that create the cluster at once, one creates it, and the other one finds it:
    ``test_two_clients_make_one_cluster``.
    """
    ids = sorted(instance.id for instance in existing if instance.role == role.role)
    identity = [config.name, config.creator, role.role, count, subnet, ids]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
