"""The vCPU quotas of an account, compared with what a launch needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flambe.cluster.providers.aws.api.aws_errors import is_aws_error, reason
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.instance_types import InstanceTypes, family
from flambe.errors import ConfigError, Problem

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


@dataclass(frozen=True)
class Quota:
    """A quota of an account: its name, and how many vCPUs it allows."""

    name: str
    vcpus: float

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Quota:
        """Read a quota of an answer."""
        return cls(answer["QuotaName"], float(answer["Value"]))


def quota_code(instance_type: str, *, spot: bool) -> str:
    """Return the code of the quota that a type counts towards; empty if it is unknown."""
    match = re.match(r"[a-z]+", family(instance_type))
    letters = match[0] if match else ""
    codes = QUOTAS.get("standard" if letters in STANDARD else letters)
    return codes[spot] if codes else ""


def check_quota(
    session: AwsSession,
    types: InstanceTypes,
    code: str,
    requested: Sequence[str],
    notify: Callable[[str], None],
) -> None:
    """Check that the account may run instances of types that all count towards one quota.

    Raises
    ------
    ConfigError
        If the quota is too small for them, whatever else is running.
    """
    summary = " + ".join(f"{requested.count(name)} x {name}" for name in dict.fromkeys(requested))
    try:
        client = session.client("service-quotas")
        answer = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)
        quota = Quota.parse(answer["Quota"])
    except Exception as error:
        if not is_aws_error(error):
            raise
        notify(f"AWS: the quota of {summary} could not be looked up: {reason(error)}")
        return
    needed = sum(types.get(name).vcpus for name in requested)
    if needed > quota.vcpus:
        raise ConfigError(
            Problem(
                f"AWS: the quota of this account in {session.region} is {quota.vcpus:g} vCPUs for "
                f"{quota.name}, and {summary} need {needed}",
                hint=f"aws service-quotas request-service-quota-increase --region {session.region} "
                f"--service-code ec2 --quota-code {code} --desired-value {needed}",
            )
        )
