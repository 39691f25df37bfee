"""What would stop a launch, found out before anything is launched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flambe.cluster.providers.aws import key_pair, user_data
from flambe.cluster.providers.aws.aws_errors import (
    code_of,
    explained,
    is_of_aws,
    reason,
    translated,
)
from flambe.cluster.providers.aws.ec2 import NO_CAPACITY, Ec2
from flambe.cluster.providers.aws.images import OLD_GPUS, family
from flambe.cluster.providers.aws.request import FACTORY, Requests
from flambe.errors import ConfigError, Problem

if TYPE_CHECKING:
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster

SSH = 22
# The quotas of vCPUs that run at the same time, by families of types: on demand, spot.
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
QUOTAS: dict[str, tuple[str, str]] = {
    "standard": ("L-1216C47A", "L-34B43A08"),
    "g": ("L-DB2E81BA", "L-3819A6DF"),
    "gr": ("L-DB2E81BA", "L-3819A6DF"),
    "vt": ("L-DB2E81BA", "L-3819A6DF"),
    "p": ("L-417A185B", "L-7212CCBC"),
}
STANDARD = ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z")


def check(cluster: AWSCluster, requests: Requests, counts: Mapping[str, int]) -> None:
    """See that a launch would work, as far as it can be known without one.

    Parameters
    ----------
    cluster, requests
        What is launched.
    counts
        How many instances of each role.

    Raises
    ------
    ConfigError, RunError
        If it would not: the security group, a permission, an image, a key, a quota.
    """
    ec2, note = cluster.ec2, cluster.observer.note
    kind = cluster.factories_type
    if FACTORY in counts and family(kind) in OLD_GPUS and cluster.factory_ami is None:
        note(
            f"warning: AWS: current drivers and builds of PyTorch do not serve the GPUs of {kind}: "
            "trials may find none. Choose a newer type, such as g5.xlarge, or a factory_ami that "
            "serves them"
        )
    key_pair.check(cluster)
    check_group(ec2, cluster.security_group, note, outside=cluster.use_public)
    key = user_data.HostKey.new()
    needed: dict[str, list[str]] = {}
    for role, count in counts.items():
        places = [
            requests.launch(role, count, key, subnet, "preflight") for subnet in cluster.subnets
        ]
        check_launch(ec2, places, f"{count} x {role.lower()}")
        kind = cluster.kind(role)
        if code := quota_of(kind, spot=cluster.spot and role == FACTORY):
            needed.setdefault(code, []).extend([kind] * count)
    for code, kinds in needed.items():
        check_quota(ec2, code, kinds, note)


def check_launch(ec2: Ec2, places: Sequence[Mapping[str, Any]], what: str) -> None:
    """Ask AWS whether it would launch, in one of several places; nothing is launched.

    Raises
    ------
    RunError
        If it would not: with the action that is not allowed, or what is not there.
    """
    wrong: Exception | None = None
    for request in places:
        try:
            ec2.ec2.run_instances(**request, DryRun=True)
        except Exception as error:
            if code_of(error) == "DryRunOperation":
                return
            wrong = wrong or error
            if code_of(error) not in NO_CAPACITY:
                break
    if wrong is not None:
        raise explained(f"launch {what}", wrong) from wrong


def quota_of(kind: str, *, spot: bool) -> str:
    """Return the code of the quota that a type of instance counts to; nothing, if it is unknown."""
    found = re.match(r"[a-z]+", family(kind))
    letters = found[0] if found else ""
    codes = QUOTAS.get("standard" if letters in STANDARD else letters)
    return codes[spot] if codes else ""


def check_quota(ec2: Ec2, code: str, kinds: Sequence[str], note: Callable[[str], None]) -> None:
    """See that the account may run so many instances that count to one quota.

    Raises
    ------
    ConfigError
        If the quota is too small for them, whatever else runs.
    """
    what = " + ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    try:
        client = ec2.client("service-quotas")
        quota = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
    except Exception as error:
        if not is_of_aws(error):
            raise
        note(f"AWS: the quota of {what} could not be looked up: {reason(error)}")
        return
    needed = sum(int(ec2.type(kind)["VCpuInfo"]["DefaultVCpus"]) for kind in kinds)
    if needed > quota["Value"]:
        raise ConfigError(
            Problem(
                f"AWS: the quota of this account in {ec2.region} is {quota['Value']:g} vCPUs for "
                f"{quota['QuotaName']}, and {what} need {needed}",
                hint=f"aws service-quotas request-service-quota-increase --region {ec2.region} "
                f"--service-code ec2 --quota-code {code} --desired-value {needed}",
            )
        )


def check_group(ec2: Ec2, group: str, note: Callable[[str], None], *, outside: bool = True) -> None:
    """See that a security group lets in SSH, and all traffic between the hosts: Ray needs it.

    SSH from ``outside``, unless a bastion leads to the hosts, which may be of the group itself.

    Raises
    ------
    ConfigError
        If it does not.
    """
    with translated(f"find the security group {group}"):
        found = ec2.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    rules = list(_inbound(found))
    problems = []
    if outside and not any(low <= SSH <= high and who != group for low, high, who in rules):
        problems.append(
            Problem(
                f"AWS: {group} lets nobody in by SSH",
                hint=f"aws ec2 authorize-security-group-ingress --region {ec2.region} "
                f"--group-id {group} --protocol tcp --port 22 --cidr YOUR.ADDRESS/32",
            )
        )
    if not any(low == 0 and high == 65535 and who == group for low, high, who in rules):
        problems.append(
            Problem(
                f"AWS: {group} has no rule for traffic from itself, and the hosts must reach "
                "one another",
                hint=f"aws ec2 authorize-security-group-ingress --region {ec2.region} "
                f"--group-id {group} --protocol all --source-group {group}",
            )
        )
    if problems:
        raise ConfigError(problems)
    if any(who in ("0.0.0.0/0", "::/0") and low <= SSH <= high for low, high, who in rules):
        note(f"AWS: {group} lets in SSH from everywhere; your own address would be enough")


def _inbound(group: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    """Yield the rules for TCP: the lowest port, the highest, and whom they let in."""
    for rule in group["IpPermissions"]:
        protocol = rule["IpProtocol"]
        if protocol not in ("-1", "tcp", "6"):
            continue
        low, high = rule.get("FromPort", -1), rule.get("ToPort", -1)
        low, high = (0, 65535) if protocol == "-1" or low == -1 else (low, high)
        sources = [one["CidrIp"] for one in rule.get("IpRanges", ())]
        sources += [one["CidrIpv6"] for one in rule.get("Ipv6Ranges", ())]
        sources += [one["PrefixListId"] for one in rule.get("PrefixListIds", ())]
        sources += [one["GroupId"] for one in rule.get("UserIdGroupPairs", ())]
        yield from ((low, high, source) for source in sources)
