"""What would stop a launch, found out before anything is launched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flambe.cluster.aws.ec2 import Ec2, code_of, explained, told
from flambe.errors import ConfigError, Problem

SSH = 22


def check_launch(ec2: Ec2, request: Mapping[str, Any], what: str) -> None:
    """Ask AWS whether it would launch; nothing is.

    Raises
    ------
    RunError
        If it would not: with the action that is not allowed, or what is not there.
    """
    try:
        ec2.ec2.run_instances(**request, DryRun=True)
    except Exception as error:
        if code_of(error) != "DryRunOperation":
            raise explained(f"launch {what}", error) from error


def check_group(ec2: Ec2, group: str, note: Callable[[str], None]) -> None:
    """See that a security group lets in SSH, and all traffic between the hosts: Ray needs it.

    Raises
    ------
    ConfigError
        If it does not.
    """
    with told(f"find the security group {group}"):
        found = ec2.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    rules = list(_inbound(found))
    problems = []
    if not any(low <= SSH <= high and who != group for low, high, who in rules):
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
    if any(who == "0.0.0.0/0" and low <= SSH <= high for low, high, who in rules):
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
