"""What moto keeps of an account: the cloud shares its process, and reads and changes it there."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import (
    INSTANCE_TYPE_OFFERINGS,
    INSTANCE_TYPES,
    InstanceType,
    InstanceTypeBackend,
)
from moto.ssm.models import ssm_backends

ACCOUNT = DEFAULT_ACCOUNT_ID
OLD_IMAGES = "MOTO_EC2_LOAD_DEFAULT_AMIS"
CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


def forget() -> None:
    """Let moto forget everything."""
    BackendDict.reset()
    reset_model_data()


@contextlib.contextmanager
def without_old_images() -> Iterator[None]:
    """Keep moto from making five hundred images of long ago in each region, which takes a second."""
    before = os.environ.get(OLD_IMAGES)
    os.environ[OLD_IMAGES] = "false"
    try:
        yield
    finally:
        os.environ.pop(OLD_IMAGES)
        if before is not None:
            os.environ[OLD_IMAGES] = before


def ec2(region: str) -> Any:
    return ec2_backends[ACCOUNT][region]


def cloudwatch(region: str) -> Any:
    return cloudwatch_backends[ACCOUNT][region]


def ssm(region: str) -> Any:
    return ssm_backends[ACCOUNT][region]


def instances(region: str) -> list[Any]:
    """Return all instances of a region, those that were terminated too."""
    return [one for each in ec2(region).reservations.values() for one in each.instances]


def become(instance: Any, state: str) -> None:
    """Put an instance into a state."""
    instance._state.name, instance._state.code = state, CODES[state]


def because(instance: Any, code: str, text: str) -> None:
    """Say why an instance is in the state that it is in.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
    """
    instance.state_reason.code = code
    instance.state_reason.message = f"{code}: {text}"


def user_data(instance: Any) -> bytes:
    """Return the user data of an instance, as it was before it was encoded for the call."""
    return base64.b64decode(str(instance.user_data)) if instance.user_data else b""


def let_go(instance: Any) -> None:
    """Let moto not remove the network cards of an instance again, if it is terminated again."""
    for card in instance.nics.values():
        card.delete_on_termination = False


def _of_long_ago() -> None:
    """Let there be a type that AWS does not offer to new accounts any more, and people still have.

    https://aws.amazon.com/ec2/instance-types/g3/
    """
    for name, like in (("g3.4xlarge", "g4dn.4xlarge"), ("g3.8xlarge", "g4dn.8xlarge")):
        INSTANCE_TYPES[name] = {**INSTANCE_TYPES[like], "InstanceType": name}
        InstanceTypeBackend.instance_types.append(InstanceType(name))
        for places in INSTANCE_TYPE_OFFERINGS.values():
            for offers in places.values():
                offers += [
                    {**one, "InstanceType": name} for one in offers if one["InstanceType"] == like
                ]


_of_long_ago()


def instance_type(name: str) -> dict[str, Any] | None:
    """Return what is known of an instance type."""
    found: dict[str, Any] | None = INSTANCE_TYPES.get(name)
    return found


def offered(name: str, zone: str) -> bool:
    """Tell whether an instance type can be had in a zone."""
    offers = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(zone[:-1], [])
    return any(each["InstanceType"] == name and each["Location"] == zone for each in offers)


def vcpus(name: str) -> int:
    kind = instance_type(name)
    return int(kind["VCpuInfo"]["DefaultVCpus"]) if kind else 0
