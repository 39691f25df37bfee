"""Automatic shutdown on machines that stay: only what is flambe's ends there."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import describe_end
from flambe.cluster.services import idle_shutdown
from flambe.cluster.services.service import Service
from flambe.remote.agent.protocol import LeaseRequest, ReaperStatus
from tests.cluster.conftest import said_of, ssh_cluster
from tests.experiment.lab import until
from tests.metal import Metal

EQUIPPED = True  # its hosts have flambe's environments from the start

pytestmark = pytest.mark.xdist_group("metal-shutdown")


def states(cluster: Any, member: ClusterHost) -> dict[str, str]:
    """Return the state of each service of a host."""
    runs = member.refresh(cluster.name).runs
    return {name: run.state.value for name, run in runs.items()}


def ended(cluster: Any, member: ClusterHost) -> bool:
    return states(cluster, member)["metal.reaper"] == "ended"


def reapers(cluster: Any, member: ClusterHost) -> int:
    """Return how many reapers have been started on a host."""
    return member.refresh(cluster.name).runs["metal.reaper"].generation


@pytest.mark.root
@pytest.mark.faults
def test_what_nobody_needs_ends_and_nothing_else(
    metal: Metal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_shutdown, "CHECK", 0.3)
    cluster = ssh_cluster(metal, factories_timeout=0, orchestrator_timeout=0.001)
    cluster.run()
    orchestrator, factory, _ = cluster.hosts
    # Somebody else works on the host, and a service of ours has nothing to do there.
    stranger = "setsid sh -c 'while :; do :; done' > /dev/null 2>&1 & echo $!"
    pid = factory.run(["sh", "-c", stranger]).stdout.strip()
    factory.agent.ask(LeaseRequest("run", 5.0))
    begun = time.monotonic()
    for member in (orchestrator, factory):
        service = Service(cluster.context, member, "site")
        service.start(service.start_request(["sleep", "1000"], {}, {}))

    def observed() -> ReaperStatus | None:
        reaper = factory.refresh("metal").reaper
        return reaper if reaper is not None and reaper.seen.time else None

    assert describe_end(until(observed, "it looks", 20)) == "not while a run needs it"
    until(lambda: states(cluster, factory).get("metal.site") == "ended", "it is stopped", 60)
    assert time.monotonic() - begun > 4.0
    assert factory.run(["kill", "-0", pid], check=False).code == 0
    factory.run(["kill", pid])
    until(lambda: states(cluster, orchestrator).get("metal.site") == "ended", "so is this", 60)
    for member in (orchestrator, factory):
        until(partial(ended, cluster, member), "its reaper ends", 30)
    # It comes back with the next run of the cluster, and goes with the timeouts.
    before = reapers(cluster, factory)
    cluster.run()
    assert reapers(cluster, factory) > before  # with this timeout it may have ended already
    forever = ssh_cluster(metal)
    forever.run()
    assert states(forever, forever.hosts[2])["metal.reaper"] != "running"
    assert states(forever, forever.hosts[1])["metal.reaper"] != "running"


def test_factories_may_not_outlive_their_orchestrator(tmp_path: Any) -> None:
    assert "outlive" in said_of(tmp_path, "orchestrator_timeout: 1, factories_timeout: 2")
    assert "cannot be -3" in said_of(tmp_path, "factories_timeout: -3")


@pytest.mark.parametrize(
    ("reaper", "told"),
    [
        ({}, ""),
        ({"settings": {"timeout": -1}}, "never"),
        ({"settings": {"timeout": 2}}, "after 2.0 h of low use"),
        ({"settings": {"timeout": 1}, "seen": {"use": "a run needs it"}}, "not while a run needs it"),
        ({"settings": {"timeout": -1, "provisioning": 1}, "ready": False}, "unless it is ready within 60 min"),
        ({"settings": {"timeout": 1}, "seen": {"idle": 600, "time": 990}}, "in 50 min, if nothing happens"),
        ({"settings": {"timeout": 0}, "seen": {"idle": 60, "time": 999}}, "at any moment"),
        ({"settings": {"timeout": 1}, "seen": {"idle": 600, "time": 990, "problems": ["GPUs cannot be read: no answer"]}},
         "in 50 min, if nothing happens; GPUs cannot be read: no answer"),
        ({"settings": {"timeout": 1}, "seen": {"use": "a run needs it", "time": -500}}, "unknown: its reaper has not checked for 25 min"),
        ({"settings": {"timeout": 1}, "seen": {"idle": 600, "time": 9999}}, "in 50 min, if nothing happens"),
    ],
)  # fmt: skip
def test_when_a_host_ends_is_told(reaper: dict[str, Any], told: str) -> None:
    if reaper:
        settings = {"command": ["halt"], **reaper["settings"]}
        reaper = {"seen": {}, **reaper, "settings": settings, "now": 1000.0}
    assert describe_end(ReaperStatus.from_json(reaper)) == told
