"""What goes wrong, when a test says so. Each is counted; ``clear()`` ends them all."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from moto.iam.access_control import IAMPolicy, PermissionResult

from tests.cloud.calls import Call, Dropped, Garbled, Refused

ANY = "*"
LOGIN_PAGE = b"<html><head><title>Welcome</title></head><body>Accept the terms</body></html>"


@dataclass
class Planned:
    """What happens to the next calls of an action."""

    kind: str
    action: str
    left: int
    code: str = ""
    message: str = ""
    status: int = 0
    seconds: float = 0.0

    def concerns(self, call: Call) -> bool:
        return self.left > 0 and self.action in (ANY, call.action)


@dataclass
class Capacity:
    """How many more instances can be had, in a zone and of a type, or in all and of all."""

    left: int
    zone: str
    instance_type: str


class Faults:
    """The switches. Times and seconds are real ones; actions are named as in ``RunInstances``."""

    def __init__(self, seed: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._seed = seed
        self.clear()

    def clear(self) -> None:
        """Let everything go well again; the counts stay."""
        self.random = random.Random(self._seed)
        self.planned: list[Planned] = []
        self.lag = 0.0
        self.boots = (0.1, 0.3)
        self.login = 0.0
        self.console = 0.0
        self.dying = 0
        self.vcpus: int | None = None
        self.quotas: dict[str, float] = {}  # of vCPUs, by code, as Service Quotas tells them
        self._capacities: list[Capacity] = []
        self._policy: IAMPolicy | None = None
        self._expired = False

    # -- of the next calls ------------------------------------------------------------------------

    def throttle(self, action: str = ANY, times: int = 1) -> None:
        """Throttle the next calls.

        https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
        """
        self.planned.append(Planned("throttle", action, times))

    def fail(
        self,
        action: str = ANY,
        times: int = 1,
        code: str = "InternalError",
        status: int = 500,
        message: str = "An internal error has occurred",
    ) -> None:
        """Answer the next calls with an error, by default one of the server, and do nothing.

        https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html#api-error-codes-table-server
        """
        self.planned.append(Planned("fail", action, times, code, message, status))

    def drop_reply(self, action: str = ANY, times: int = 1) -> None:
        """Do what the next calls ask, and close the connection without an answer."""
        self.planned.append(Planned("drop", action, times))

    def refuse_connection(self, action: str = ANY, times: int = 1) -> None:
        """Close the connection without an answer, and do nothing of what the next calls ask."""
        self.planned.append(Planned("refuse", action, times))

    def truncate_reply(self, action: str = ANY, times: int = 1) -> None:
        """Do what the next calls ask, and send the first half of the answer."""
        self.planned.append(Planned("truncate", action, times))

    def replace_reply(self, action: str = ANY, times: int = 1) -> None:
        """Do what the next calls ask, and answer as the login page of a network does."""
        self.planned.append(Planned("replace", action, times))

    def stall(self, action: str = ANY, times: int = 1, seconds: float = 1.0) -> None:
        """Take a while before the next calls are looked at, longer than a client may wait."""
        self.planned.append(Planned("stall", action, times, seconds=seconds))

    # -- until told otherwise ---------------------------------------------------------------------

    def describe_lag(self, seconds: float) -> None:
        """Hide new instances from every call for a while.

        https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
        """
        self.lag = seconds

    def boot_delay(self, least: float, most: float) -> None:
        """Let instances be pending for a time between these, by the seed."""
        self.boots = (least, most)

    def login_delay(self, seconds: float) -> None:
        """Let port 22 be open that long before the key of a new instance lets anybody in."""
        self.login = seconds

    def console_delay(self, seconds: float) -> None:
        """Let the console output of an instance be empty for that long after it runs.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html
        """
        self.console = seconds

    def die_pending(self, count: int = 1) -> None:
        """Let the next instances be terminated before they run.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html#troubleshooting-launch-internal
        """
        self.dying += count

    def capacity(self, left: int, zone: str = ANY, instance_type: str = ANY) -> None:
        """Let so many more instances be had, then InsufficientInstanceCapacity.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html#troubleshooting-launch-capacity
        """
        self._capacities.append(Capacity(left, zone, instance_type))

    def quota(self, vcpus: int | None) -> None:
        """Let the account have so many vCPUs running, then VcpuLimitExceeded.

        https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
        """
        self.vcpus = vcpus

    def policy(self, document: dict[str, Any] | None) -> None:
        """Let an IAM policy say which actions are allowed; moto reads it, and reads actions only.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
        """
        self._policy = None if document is None else IAMPolicy(json.dumps(document))

    def deny(self, *actions: str) -> None:
        """Allow everything but these actions, such as ``ec2:TerminateInstances``."""
        allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        deny = {"Effect": "Deny", "Action": list(actions), "Resource": "*"}
        self.policy({"Version": "2012-10-17", "Statement": [allow, deny]})

    def expire_credentials(self, expired: bool = True) -> None:
        """Let the credentials of every caller be expired, or good again.

        https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
        """
        self._expired = expired

    # -- what the cloud asks ----------------------------------------------------------------------

    def before(self, call: Call) -> None:
        """Refuse a call that is not let through."""
        if stalled := self._take(call, "stall"):
            self._count("stall")
            time.sleep(stalled.seconds)
        if self._take(call, "refuse"):
            self._count("refuse")
            raise Dropped
        if self._expired:
            self._count("expired")
            raise _expired(call)
        if self._policy is not None and not self._permits(call):
            self._count("denied")
            raise _denied(call)
        if planned := self._take(call, "throttle", "fail"):
            self._count(planned.kind)
            if planned.kind == "throttle":
                raise _throttled(call)
            raise Refused(planned.code, planned.message, planned.status)

    def after(self, call: Call) -> None:
        """Drop the answer of a call, or spoil it, where that is planned."""
        if self._take(call, "drop"):
            self._count("drop")
            raise Dropped
        if planned := self._take(call, "truncate", "replace"):
            self._count(planned.kind)
            raise Garbled(0.5, LOGIN_PAGE if planned.kind == "replace" else b"")

    def dies(self) -> bool:
        """Tell whether an instance that was launched dies while it is pending."""
        with self._lock:
            dies, self.dying = self.dying > 0, max(0, self.dying - 1)
        if dies:
            self._count("die_pending")
        return dies

    def boot_seconds(self) -> float:
        return self.random.uniform(*self.boots)

    def available(self, zone: str, instance_type: str, wanted: int) -> int:
        """Return how many of the wanted instances can be had."""
        return min([wanted, *(each.left for each in self._limits(zone, instance_type))])

    def take(self, zone: str, instance_type: str, count: int) -> None:
        """Count instances that were launched."""
        for each in self._limits(zone, instance_type):
            each.left -= count

    def refused_capacity(self) -> None:
        self._count("capacity")

    def _limits(self, zone: str, instance_type: str) -> list[Capacity]:
        return [
            each
            for each in self._capacities
            if each.zone in (ANY, zone) and each.instance_type in (ANY, instance_type)
        ]

    def _permits(self, call: Call) -> bool:
        # The one action that no policy can deny.
        if call.name == "sts:GetCallerIdentity" or self._policy is None:
            return True
        return bool(self._policy.is_action_permitted(call.name) == PermissionResult.PERMITTED)

    def _take(self, call: Call, *kinds: str) -> Planned | None:
        with self._lock:
            for planned in self.planned:
                if planned.kind in kinds and planned.concerns(call):
                    planned.left -= 1
                    return planned
        return None

    def _count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1


def _throttled(call: Call) -> Refused:
    if call.service == "ec2":
        return Refused("RequestLimitExceeded", "Request limit exceeded.", 503)
    return Refused(
        "ThrottlingException" if call.protocol == "json" else "Throttling", "Rate exceeded"
    )


def _expired(call: Call) -> Refused:
    if call.service == "ec2":
        return Refused("RequestExpired", "Request has expired.")
    code = "ExpiredTokenException" if call.protocol == "json" else "ExpiredToken"
    return Refused(code, "The security token included in the request is expired", 403)


def _denied(call: Call) -> Refused:
    who = "User: arn:aws:iam::123456789012:user/tester is not authorized to perform"
    if call.service == "ec2":
        text = "You are not authorized to perform this operation."
        reason = f"because no identity-based policy allows the {call.name} action"
        return Refused("UnauthorizedOperation", f"{text} {who}: {call.name} {reason}", 403)
    code = "AccessDeniedException" if call.protocol == "json" else "AccessDenied"
    return Refused(code, f"{who}: {call.name}", 403)
