"""Clouds for tests: ``cloud`` with a real host for each instance, ``paper`` with none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.metal.conftest import skip_where_impossible
from tests.metal.machine import until

if TYPE_CHECKING:
    from tests.cloud import Cloud, Machine

SECONDS = 60.0


@contextlib.contextmanager
def lent(**options: Any) -> Iterator[Cloud]:
    """Lend a cloud to a fixture; skip where there can be no hosts and there are to be."""
    from tests.cloud import Cloud

    if options.get("hosts", True):
        skip_where_impossible()
    with Cloud(**options) as cloud:
        yield cloud


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """Lend a cloud whose instances are real hosts; tests that use it are marked ``root``."""
    with lent() as one:
        yield one


@pytest.fixture
def paper() -> Iterator[Cloud]:
    """Lend a cloud whose instances are entries, which change their states as real ones do."""
    with lent(hosts=False) as one:
        one.faults.boot_delay(0, 0.02)
        yield one


def launch(cloud: Cloud, count: int = 1, **more: Any) -> list[str]:
    """Launch instances, all or none, and return their ids."""
    reply = cloud.client("ec2").run_instances(**request(cloud, count, **more))
    return [one["InstanceId"] for one in reply["Instances"]]


def request(cloud: Cloud, count: int = 1, **more: Any) -> dict[str, Any]:
    """Return the parameters of RunInstances for instances as tests have them."""
    prepared = cloud.prepared
    return {
        "ImageId": prepared.images["ubuntu/server/22.04"],
        "InstanceType": "t3.large",
        "MinCount": count,
        "MaxCount": count,
        "SubnetId": prepared.subnet,
        "SecurityGroupIds": [prepared.security_group],
        "KeyName": prepared.key_name,
        **more,
    }


def running(cloud: Cloud, count: int = 1, **more: Any) -> list[Machine]:
    """Launch instances, and return them when they run, and when their hosts have booted."""
    machines = [cloud.machine(name) for name in launch(cloud, count, **more)]
    for machine in machines:
        reach(machine, "running")
        if machine.guest is not None:
            machine.guest.await_boot()
    return machines


def reach(machine: Machine, state: str) -> None:
    """Wait until an instance is in a state."""
    wait(lambda: machine.state == state, f"{machine.id} to be {state}, not {machine.state}")


def wait(condition: Callable[[], object], what: str = "what the test waits for") -> None:
    """Wait until a condition holds."""
    until(condition, what, SECONDS)


def refused(call: Callable[..., Any], **parameters: Any) -> str:
    """Return the code of the error that a call gets."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return str(caught.value.response["Error"]["Code"])
