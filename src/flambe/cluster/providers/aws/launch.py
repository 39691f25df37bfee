"""Launching instances: both roles at the same time, each of them whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from flambe.cluster.machine import ORCHESTRATOR as FIRST
from flambe.cluster.providers.aws import preflight, user_data
from flambe.cluster.providers.aws.aws_errors import code_of, explained, may_have_happened
from flambe.cluster.providers.aws.ec2 import NO_CAPACITY
from flambe.cluster.providers.aws.instance import tags_of
from flambe.cluster.providers.aws.request import FACTORY, ORCHESTRATOR, Requests
from flambe.cluster.providers.aws.rollback import Changes
from flambe.errors import FlambeError, RunError

if TYPE_CHECKING:
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster


def launch(
    cluster: AWSCluster,
    names: Sequence[str],
    known: Sequence[Mapping[str, Any]],
    changes: Changes,
) -> list[str]:
    """Launch instances for hosts; return their ids.

    Parameters
    ----------
    cluster
        The cluster.
    names
        The hosts that are missing.
    known
        The instances that are there.
    changes
        Gets the instances that this call launched itself, as soon as they are; another client may
        have launched the same ones.

    Raises
    ------
    RunError, ConfigError
        If AWS would refuse, which is asked first, or does.
    """
    counts = {ORCHESTRATOR: names.count(FIRST)}
    counts[FACTORY] = len(names) - counts[ORCHESTRATOR]
    counts = {role: count for role, count in counts.items() if count}
    if not counts:
        return []
    requests = Requests(cluster)
    _tell(cluster, counts)
    preflight.check(cluster, requests, counts)
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(_launch, cluster, requests, role, count, known, changes)
            for role, count in counts.items()
        ]
        try:
            wait(jobs)
        except KeyboardInterrupt:
            # What is on its way to AWS cannot be called back, only undone when it is known.
            changes.is_over.set()
            cluster.observer.note("AWS: waiting for what was asked for, to undo it")
            wait(jobs)
            raise
    errors = [error for job in jobs if (error := job.exception())]
    if errors:
        raise errors[0] if len({str(error) for error in errors}) == 1 else _joined(errors)
    return [identity for job in jobs for identity in job.result()]


def _joined(errors: Sequence[BaseException]) -> BaseException:
    unexpected = [error for error in errors if not isinstance(error, FlambeError)]
    return unexpected[0] if unexpected else RunError("\n".join(map(str, errors)))


def _tell(cluster: AWSCluster, counts: Mapping[str, int]) -> None:
    """Say what is about to be launched, and what it will do when nobody needs it."""
    for role, count in counts.items():
        cluster.observer.note(f"AWS: {summary(cluster, role, count)}")


def summary(cluster: AWSCluster, role: str, count: int) -> str:
    """Return what instances of a role are, and when they end by themselves."""
    hours = cluster.timeout(role)
    if hours < 0:
        ends = "until flambe down"
    elif hours == 0:
        ends = "ends as soon as it is idle"
    else:
        ends = f"ends after {hours:g} h of low use"
    market = ", spot" if cluster.spot and role == FACTORY else ""
    market += ", dedicated" if cluster.dedicated else ""
    kind, subnets = cluster.kind(role), ", ".join(cluster.subnets)
    return (
        f"{count} x {kind} as {role.lower()}{market}, in {cluster.ec2.region} ({subnets}), "
        f"{cluster.volume_size:g} GB each; {ends}"
    )


def _launch(
    cluster: AWSCluster,
    requests: Requests,
    role: str,
    count: int,
    known: Sequence[Mapping[str, Any]],
    changes: Changes,
) -> list[str]:
    """Launch the instances of one role, in the first zone that has them."""
    key = user_data.HostKey.new()
    what = f"launch {count} x {role.lower()}"
    error: Exception | None = None
    for subnet in cluster.subnets:
        token = _token(cluster, role, count, subnet, known)
        request = requests.launch(role, count, key, subnet, token)
        cluster.journal.write("launch", role=role, count=count, subnet=subnet, token=token)
        try:
            ids, is_mine = cluster.ec2.launch(request, token, changes.is_over.is_set)
        except Exception as failed:
            if code_of(failed) not in NO_CAPACITY:
                if may_have_happened(failed):
                    changes.unanswered.append(key.public)
                raise explained(what, failed) from failed
            cluster.observer.note(f"AWS: no capacity in the zone of {subnet}")
            error = failed
            continue
        changes.created += ids if is_mine else []
        cluster.journal.write("launched", role=role, ids=ids)
        return ids
    assert error is not None
    raise explained(f"{what} in any of the subnets", error) from error


def _token(
    cluster: AWSCluster, role: str, count: int, subnet: str, known: Sequence[Mapping[str, Any]]
) -> str:
    """Return what makes two launches the same one: whoever asks, from whatever laptop."""
    there = sorted(one["InstanceId"] for one in known if tags_of(one).get("Role") == role)
    value = [cluster.name, cluster.creator, role, count, subnet, there]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
