"""Clouds for tests of AWSCluster, and files of clusters in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.loaders import create_loader

from flambe.cluster.providers.aws import AWSCluster
from flambe.cluster.providers.aws.api import instances
from flambe.cluster.providers.aws.aws_config import AwsConfig, RoleConfig
from flambe.cluster.providers.aws.user_data import ReaperSettings
from flambe.testing import RecordingObserver
from tests.cloud.conftest import lent

if TYPE_CHECKING:
    from tests.cloud import Cloud

Make = Callable[..., AWSCluster]


NAMES = ["orchestrator", "factory_1", "factory_2"]  # of the hosts of a cluster as tests have it


def keywords(place: Cloud, factories: int, **more: Any) -> dict[str, Any]:
    """Return the keywords of a cluster in a cloud."""
    prepared = place.prepared
    return {
        "name": "lab",
        "factories_num": factories,
        "factories_type": "t3.large",
        "orchestrator_type": "t3.large",
        "key_name": prepared.key_name,
        "key": str(prepared.key),
        "creator": "me@example.com",
        "security_group": prepared.security_group,
        "subnet_id": prepared.subnet,
        **more,
    }


def up(cluster: AWSCluster) -> list[str]:
    """Find and create the machines of a cluster; return their names."""
    return [machine.name for machine in cluster.create_machines(cluster.find_machines())]


@pytest.fixture
def paper() -> Iterator[Cloud]:
    """Lend a cloud whose instances are entries."""
    with lent(hosts=False) as one:
        one.faults.boot_delay(0, 0.02)
        yield one


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """Lend a cloud with a real host for each instance."""
    with lent() as one:
        yield one


@pytest.fixture(autouse=True, scope="session")
def _models() -> Iterator[None]:
    """Let all sessions of boto3 share the models of services: to parse those takes most of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(create_loader))
        yield


@pytest.fixture
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make clusters in the cloud of the test."""
    names = request.fixturenames
    place: Cloud = request.getfixturevalue("cloud" if "cloud" in names else "paper")
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    if not place.hosts:  # its instances run at once
        monkeypatch.setattr(instances, "POLL", 0.05)

    def made(factories: int = 2, **more: Any) -> AWSCluster:
        cluster = AWSCluster(**keywords(place, factories, **more))
        cluster.observer = RecordingObserver()
        return cluster

    return made


def check_often(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the reapers of all instances look every few seconds."""
    original = AwsConfig.reaper_settings

    def settings(config: AwsConfig, role: RoleConfig) -> ReaperSettings:
        return {**original(config, role), "check": seconds}

    monkeypatch.setattr(AwsConfig, "reaper_settings", settings)


def left(place: Cloud) -> list[Any]:
    """Return the instances that are there, or come back."""
    return place.instances("pending", "running", "stopping", "stopped")
