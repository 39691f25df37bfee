"""RunInstances, with what moto leaves out: client tokens, MaxCount, capacity, zones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cloud import checks, models
from tests.cloud.calls import Call, Refused, Reply

if TYPE_CHECKING:
    from tests.cloud.faults import Faults

Forward = Callable[[Call], Reply]


@dataclass
class Launched:
    """What a client token stands for."""

    identity: str
    reply: Reply
    instances: list[Any]


class Launcher:
    """Launches instances."""

    def __init__(
        self, faults: Faults, adopt: Callable[[Any], None], network: tuple[str, str] | None
    ) -> None:
        self._faults = faults
        self._adopt = adopt
        self._network = network  # the region and the VPC that hosts are in, where there are any
        self._tokens: dict[tuple[str, str, str], Launched] = {}

    def run_instances(self, call: Call, forward: Forward) -> Reply:
        """Launch all of what is asked for, or nothing.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
        """
        least, most = (int(call.parameters.get(name) or 0) for name in ("MinCount", "MaxCount"))
        if not 1 <= least <= most:
            text = f"The value for MinCount ({least}) or MaxCount ({most}) is not valid"
            raise Refused("InvalidParameterValue", text)
        token = self._token(call)
        if token in self._tokens and not call.parameters.get("DryRun"):
            return self._again(self._tokens[token], call)
        checks.launch(call, self._faults.vcpus)
        if call.parameters.get("DryRun"):
            text = "Request would have succeeded, but DryRun flag is set."
            raise Refused("DryRunOperation", text, 412)
        identity = call.identity
        self._place(call)
        count = self._count(call, least, most)
        before = {instance.id for instance in models.instances(call.region)}
        call.form["MinCount"] = str(count)  # moto launches as many as this says
        reply = forward(call)
        fresh = [one for one in models.instances(call.region) if one.id not in before]
        if reply.status == 200:
            # The time to answer must not let anybody see it running before it is pending.
            for instance in fresh:
                self._adopt(instance)
            if call.parameters.get("ClientToken"):
                self._tokens[token] = Launched(identity, reply, fresh)
        return reply

    def _place(self, call: Call) -> None:
        """Say which network a launch goes to that does not say so: the default one.

        https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc.html
        """
        cloud, asked = models.ec2(call.region), call.parameters
        name = checks.subnet_id(asked)
        if not name:
            default = cloud.get_default_subnets().get(checks.zone_of(call))
            if default is None:
                raise Refused("VPCIdNotSpecified", "No default VPC for this user")
            name = default.id
            cards = asked.get("NetworkInterfaces")
            call.form["NetworkInterface.1.SubnetId" if cards else "SubnetId"] = name
        vpc = cloud.get_subnet(name).vpc_id
        if self._network is not None and (call.region, vpc) != self._network:
            text = f"This test cloud has hosts in {' '.join(self._network)} only"
            raise Refused("UnsupportedOperation", text)
        cards = asked.get("NetworkInterfaces") or [{}]
        if not (
            asked.get("SecurityGroupIds") or asked.get("SecurityGroups") or cards[0].get("Groups")
        ):
            group = cloud.get_security_group_from_name("default", vpc_id=vpc)
            many = "NetworkInterface.1.SecurityGroupId.1" if cards[0] else "SecurityGroupId.1"
            call.form[many] = group.id

    def _token(self, call: Call) -> tuple[str, str, str]:
        """Return what a client token is good for once: a zone, or the region where none is named.

        https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html#run-instances-idempotency
        """
        placement = call.parameters.get("Placement") or {}
        zonal = checks.subnet_id(call.parameters) or placement.get("AvailabilityZone")
        zone = checks.zone_of(call) if zonal else ""
        return str(call.parameters.get("ClientToken", "")), call.region, zone

    def _again(self, launched: Launched, call: Call) -> Reply:
        if launched.identity != call.identity:
            raise Refused(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in "
                "previous request(s).",
            )
        if any(one.state in ("shutting-down", "terminated") for one in launched.instances):
            raise Refused(
                "IdempotentInstanceTerminated",
                "The client token you have provided is associated with a resource that is already "
                "deleted. Please use a different client token.",
            )
        return launched.reply

    def _count(self, call: Call, least: int, most: int) -> int:
        """Return how many to launch: the most that can be had, and none below the least."""
        zone, kind = checks.zone_of(call), str(call.parameters.get("InstanceType") or "m1.small")
        count = self._faults.available(zone, kind, most)
        if count < least:
            self._faults.refused_capacity()
            raise no_capacity(kind, zone)
        self._faults.take(zone, kind, count)
        return count


def no_capacity(kind: str, zone: str) -> Refused:
    """Return the answer where there is no machine for an instance.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html#troubleshooting-launch-capacity
    """
    return Refused(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you "
        f"requested ({zone}). Our system will be working on provisioning additional capacity. You "
        "can currently get capacity by not specifying an Availability Zone in your request or "
        "choosing another Availability Zone.",
        500,
    )
