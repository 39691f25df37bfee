"""Security groups: whom they allow in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws.api.aws_errors import translate_errors
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.errors import ConfigError, Problem

SSH_PORT, LAST_PORT = 22, 65535
EVERYWHERE = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True)
class IngressRule:
    """TCP ports, and the address range, prefix list or security group that may connect to them."""

    first_port: int
    last_port: int
    source: str

    @property
    def allows_ssh(self) -> bool:
        """Whether SSH's port is among them."""
        return self.first_port <= SSH_PORT <= self.last_port

    @property
    def allows_all_ports(self) -> bool:
        """Whether all ports are among them."""
        return self.first_port == 0 and self.last_port == LAST_PORT


def ingress_rules(group: Mapping[str, Any]) -> Iterator[IngressRule]:
    """Yield the rules for TCP of a security group, as DescribeSecurityGroups answers it."""
    for rule in group["IpPermissions"]:
        protocol = rule["IpProtocol"]
        if protocol not in ("-1", "tcp", "6"):
            continue
        first, last = rule.get("FromPort", -1), rule.get("ToPort", -1)
        if protocol == "-1" or first == -1:
            first, last = 0, LAST_PORT
        sources = [each["CidrIp"] for each in rule.get("IpRanges", ())]
        sources += [each["CidrIpv6"] for each in rule.get("Ipv6Ranges", ())]
        sources += [each["PrefixListId"] for each in rule.get("PrefixListIds", ())]
        sources += [each["GroupId"] for each in rule.get("UserIdGroupPairs", ())]
        yield from (IngressRule(first, last, source) for source in sources)


def check_security_group(
    session: AwsSession, group: str, notify: Callable[[str], None], *, from_outside: bool = True
) -> None:
    """Check that a security group allows SSH, and all traffic between the hosts, as Ray needs.

    SSH must be allowed ``from_outside``, unless a bastion leads to the hosts, which may be in the
    group itself.

    Raises
    ------
    ConfigError
        If it does not.
    """
    with translate_errors(f"find the security group {group}"):
        answer = session.ec2.describe_security_groups(GroupIds=[group])
        rules = list(ingress_rules(answer["SecurityGroups"][0]))
    command = (
        f"aws ec2 authorize-security-group-ingress --region {session.region} --group-id {group}"
    )
    problems = []
    if from_outside and not any(rule.allows_ssh and rule.source != group for rule in rules):
        hint = f"{command} --protocol tcp --port 22 --cidr YOUR.ADDRESS/32"
        problems.append(Problem(f"AWS: {group} has no rule that allows SSH", hint=hint))
    if not any(rule.allows_all_ports and rule.source == group for rule in rules):
        text = f"AWS: {group} has no rule for traffic from itself: the hosts must reach one another"
        problems.append(Problem(text, hint=f"{command} --protocol all --source-group {group}"))
    if problems:
        raise ConfigError(problems)
    if any(rule.source in EVERYWHERE and rule.allows_ssh for rule in rules):
        notify(f"AWS: {group} allows SSH from everywhere; your own address would be enough")
