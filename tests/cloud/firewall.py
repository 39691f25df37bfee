"""Security groups are enforced: what reaches a host is what the groups of its instance let in.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-rules.html
What goes out is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cloud.machine import Machine

CHAIN = "GROUPS"
# Answers to what the host asked are always let in.
ALWAYS = ["-i lo", "-m conntrack --ctstate ESTABLISHED,RELATED"]


def rules(machine: Machine, machines: Iterable[Machine]) -> str:
    """Return the rules for a host, as iptables-restore reads them."""
    let_in = list(ALWAYS)
    for group in groups(machine):
        for rule in group.ingress_rules:
            let_in += [f"{_what(rule)} -s {source}" for source in _sources(rule, machines)]
    lines = ["*filter", f":{CHAIN} - [0:0]"]
    lines += [f"-A {CHAIN} {words.strip()} -j RETURN" for words in let_in]
    return "\n".join([*lines, f"-A {CHAIN} -j DROP", "COMMIT", ""])


def groups(machine: Machine) -> list[Any]:
    """Return the security groups of an instance, those of its network card too."""
    found = {group.id: group for group in machine.model.security_groups}
    for card in machine.model.nics.values():
        found |= {group.id: group for group in card.group_set}
    return list(found.values())


def _what(rule: Any) -> str:
    if rule.ip_protocol == "-1":
        return ""
    if rule.ip_protocol not in ("tcp", "udp"):
        return f"-p {rule.ip_protocol}"
    return f"-p {rule.ip_protocol} --dport {rule.from_port}:{rule.to_port}"


def _sources(rule: Any, machines: Iterable[Machine]) -> list[str]:
    """Return where a rule lets from: a block of addresses, or the members of a group."""
    if rule.cidr_ipv4:
        return [rule.cidr_ipv4]
    wanted = rule.source_group.get("GroupId")
    return [
        f"{other.private_address}/32"
        for other in machines
        if other.state != "terminated" and wanted in {group.id for group in groups(other)}
    ]
