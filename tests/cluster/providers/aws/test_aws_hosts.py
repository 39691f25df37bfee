"""AWSCluster from nothing to ready and back to nothing: each instance is a real host."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.providers.aws import AWSCluster
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.user_data import READY, SETTINGS
from flambe.errors import FlambeError
from flambe.testing import RecordingObserver
from tests.cloud import Cloud
from tests.cluster.providers.aws.conftest import Make, check_often, left

pytestmark = [pytest.mark.integration, pytest.mark.root]


def told(cluster: AWSCluster) -> list[str]:
    assert isinstance(cluster.observer, RecordingObserver)
    return cluster.observer.notes


def test_from_nothing_to_ready_and_back(cloud: Cloud, make: Make) -> None:
    cluster = make(1, setup_cmds=["echo made > made.txt"])
    cluster.run()
    orchestrator, factory = cluster.hosts
    assert factory.run(["cat", "made.txt"]).stdout == "made\n"
    assert orchestrator.run(["sudo", "test", "-e", READY]).code == 0
    assert '"timeout": -1' in orchestrator.run(["sudo", "cat", SETTINGS]).stdout
    # The key that was planted is replaced, and the new one is known.
    known = cluster.fleet.find()["orchestrator"].tags["flambe-host-key"]
    assert orchestrator.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.startswith(known)
    # Each reaches the other by its private address, with the cluster's own pair.
    address = str(factory.machine.private)
    assert orchestrator.run(["ssh", "-o", "BatchMode=yes", address, "true"]).code == 0
    again = make(1, setup_cmds=["echo made > made.txt"])
    again.run()
    assert "everything is in place" in told(again)
    again.remove_machines()
    assert left(cloud) == []


@pytest.mark.long
@pytest.mark.faults
def test_an_instance_that_lets_nobody_in_takes_all_along(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flambe.cluster import cluster_host

    monkeypatch.setattr(cluster_host, "NEW_MACHINE", 15)
    cloud.faults.login_delay(300)
    with pytest.raises(FlambeError, match="factory_1|orchestrator"):
        make(1).run()
    assert left(cloud) == []


@pytest.mark.long
@pytest.mark.faults
def test_a_login_that_works_late_is_waited_for(cloud: Cloud, make: Make) -> None:
    cloud.faults.login_delay(12)
    cluster = make(0)
    cluster.run()
    assert cluster.orchestrator.run(["true"]).code == 0


# As in the first minutes of Ubuntu: cloud-init goes on after sshd is there, and a timer of apt works.
BUSY = r"""
cat > /usr/local/bin/cloud-init <<'END'
#!/bin/sh
touch /run/asked
until [ -e /run/booted ]; do sleep 0.1; done
END
chmod +x /usr/local/bin/cloud-init
cat > /run/apt.py <<'END'
import fcntl, pathlib, time
stream = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(stream, fcntl.LOCK_EX)
pathlib.Path("/run/locked").touch()
while not pathlib.Path("/run/asked").exists():
    time.sleep(0.1)
pathlib.Path("/run/booted").touch()
time.sleep(10)
pathlib.Path("/run/installed").touch()
END
setsid python3 /run/apt.py < /dev/null > /dev/null 2>&1 &
until [ -e /run/locked ]; do sleep 0.1; done
"""


@pytest.mark.long
@pytest.mark.faults
def test_setup_commands_wait_for_the_boot(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = AWSCluster.trust

    def busy(self: AWSCluster, members: Sequence[ClusterHost]) -> None:
        trust(self, members)
        for member in members:
            member.run(["sudo", "sh", "-c", BUSY])

    monkeypatch.setattr(AWSCluster, "trust", busy)
    timeout = "apt-config dump DPkg::Lock::Timeout | grep 600"
    cluster = make(0, setup_cmds=[f"test -e /run/booted && test -e /run/installed && {timeout}"])
    cluster.run()
    assert isinstance(cluster.observer, RecordingObserver)
    lines = "\n".join(text for _, text in cluster.observer.lines)
    assert "waiting for the lock of /var/lib/dpkg/lock-frontend" in lines


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.parametrize("fault", ["drop_reply", "replace_reply"])
@pytest.mark.parametrize("step", ["CreateTags", "PutMetricAlarm"])
def test_a_connection_that_is_cut_when_hosts_are_there(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch, step: str, fault: str
) -> None:
    """A tag that cannot be set undoes all; an alarm is a warning."""
    monkeypatch.setattr(AwsSession, "attempts", 2)
    getattr(cloud.faults, fault)(step, 1000)
    cluster = make(1, factories_alarm=True, factories_timeout=5)
    if step == "CreateTags" and fault == "drop_reply":
        with pytest.raises(FlambeError, match="cannot tag instances"):
            cluster.run()
        assert left(cloud) == []
    else:  # both have no answer but that it is done
        cluster.run()
        assert step == "CreateTags" or fault == "replace_reply" or "no alarms" in str(told(cluster))
        cluster.remove_machines()


@pytest.mark.long
@pytest.mark.faults
def test_a_setup_command_that_fails_leaves_no_instance(cloud: Cloud, make: Make) -> None:
    with pytest.raises(FlambeError, match="exit code 3"):
        make(1, setup_cmds=["exit 3"]).run()
    assert left(cloud) == []


@pytest.mark.long
@pytest.mark.faults
def test_an_idle_host_ends_itself(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_often(monkeypatch, 0.5)
    cluster = make(1, factories_timeout=0.001, orchestrator_timeout=-1)
    cluster.run()
    deadline = time.monotonic() + 240
    while len(left(cloud)) > 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    (kept,) = left(cloud)
    assert kept.private_address == cluster.orchestrator.machine.private.host


@pytest.mark.faults
def test_a_host_that_is_never_ready_ends_itself(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_often(monkeypatch, 0.5)
    cluster = make(0, provisioning_timeout=0.002)
    cluster.create_machines(cluster.find_machines())
    deadline = time.monotonic() + 240
    while left(cloud) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left(cloud) == []
