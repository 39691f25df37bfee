"""An EC2 instance, as DescribeInstances answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from flambe.cluster.providers.aws.api import aws_tags

RUNNING = "running"
OFF = ("stopped", "stopping")
LIVE = ("pending", RUNNING, *OFF)
ENDED = ("shutting-down", "terminated")


@dataclass(frozen=True)
class Instance:
    """One instance.

    Attributes
    ----------
    id, type, state
        ``i-0123456789abcdef0``, ``t3.large``, ``running``.
    state_reason
        Why it is in that state, where AWS says so.
    launched
        When it was launched, or last started.
    launch_index
        Its position among those of one launch.
    tags
        Its tags.
    private_ip, public_ip
        Its addresses; empty while it has none.
    key_name, image, subnet, security_groups, profile
        What it was launched with; ``profile`` is the name of its instance profile, or empty.
    dedicated, spot
        Whether it runs on dedicated hardware, and whether it is a spot instance.
    """

    id: str
    type: str
    state: str
    state_reason: str
    launched: datetime
    launch_index: int
    tags: Mapping[str, str]
    private_ip: str
    public_ip: str
    key_name: str
    image: str
    subnet: str
    security_groups: frozenset[str]
    profile: str
    dedicated: bool
    spot: bool

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Instance:
        """Read an instance of an answer.

        Raises
        ------
        LookupError
            If a field is missing that AWS always sends: the answer is not from AWS.
        """
        interfaces = answer.get("NetworkInterfaces", ())
        groups = [*answer.get("SecurityGroups", ())]
        groups += [group for interface in interfaces for group in interface.get("Groups", ())]
        profile = answer.get("IamInstanceProfile", {}).get("Arn", "")
        return cls(
            id=answer["InstanceId"],
            type=answer["InstanceType"],
            state=answer["State"]["Name"],
            state_reason=answer.get("StateReason", {}).get("Message", ""),
            launched=answer["LaunchTime"],
            launch_index=answer.get("AmiLaunchIndex", 0),
            tags=parse_tags(answer),
            private_ip=answer.get("PrivateIpAddress", ""),
            public_ip=answer.get("PublicIpAddress", ""),
            key_name=answer.get("KeyName", ""),
            image=answer.get("ImageId", ""),
            subnet=answer.get("SubnetId", ""),
            security_groups=frozenset(group["GroupId"] for group in groups),
            profile=profile.rpartition("/")[2],
            dedicated=answer.get("Placement", {}).get("Tenancy") == "dedicated",
            spot=answer.get("InstanceLifecycle") == "spot",
        )

    @property
    def is_running(self) -> bool:
        """Whether it is running."""
        return self.state == RUNNING

    @property
    def is_off(self) -> bool:
        """Whether it is stopped, or about to be."""
        return self.state in OFF

    @property
    def role(self) -> str:
        """The value of its tag ``Role``; empty without one."""
        return self.tags.get("Role", "")

    @property
    def cluster(self) -> str:
        """The name of its cluster; empty without one."""
        return self.tags.get("Cluster-Name", "")

    @property
    def creator(self) -> str:
        """The creator of its cluster; empty without one."""
        return self.tags.get("creator", "")

    @property
    def is_settled(self) -> bool:
        """Whether flambe has reached it once, and given it its name."""
        return aws_tags.HOST_NAME in self.tags

    @property
    def host_name(self) -> str:
        """Its name in the cluster; empty for a factory that has none yet."""
        if self.role == aws_tags.ORCHESTRATOR:
            return "orchestrator"
        # Anyone may set tags, and the name becomes a line of the hosts' ssh configuration.
        name = self.tags.get(aws_tags.HOST_NAME, "")
        return name if re.fullmatch(r"factory_[0-9]{1,6}", name) else ""

    @property
    def ready_within(self) -> float:
        """The hours within which it must be ready; one hour without a tag that says so."""
        try:
            return float(self.tags.get(aws_tags.READY_WITHIN, "1"))
        except ValueError:
            return 1.0

    @property
    def age(self) -> float:
        """The seconds since it was launched, or last started."""
        return (datetime.now(timezone.utc) - self.launched).total_seconds()


def parse_tags(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an instance or a volume."""
    return {tag["Key"]: tag["Value"] for tag in answer.get("Tags", ())}
