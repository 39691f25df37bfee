"""Who holds a lock of a cluster is no more only where that can be seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import LocalCluster
from flambe.cluster.provisioning import lock
from flambe.errors import HeldError
from flambe.remote import identity
from flambe.remote.agent.protocol import LockHolder, LockRequest, UnlockRequest
from tests.cluster.conftest import connected
from tests.cluster.place import local as lent

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("hosts")]


@pytest.fixture
def cluster(local: Any) -> LocalCluster:
    made: LocalCluster = local(0)
    connected(made)
    return made


def taken(cluster: LocalCluster, who: dict[str, Any], seconds: float = 60) -> None:
    """Let somebody take the lock, as from somewhere else."""
    name = f"{cluster.name}/provision"
    request = LockRequest(name, "theirs", LockHolder.from_json(who), seconds)
    assert cluster.orchestrator.agent.ask(request).taken


def had(cluster: LocalCluster) -> bool:
    """Whether the lock can be had here."""
    try:
        with lock.held(cluster.context, "provision", "preparing the cluster"):
            return True
    except HeldError as error:
        assert "the cluster is in use: " in str(error)
        return False


def test_a_holder_is_gone_only_where_that_can_be_seen(cluster: LocalCluster) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        mine: Any = {**lock.this_process("preparing the cluster").to_json(), "pid": process.pid}
        mine["process"] = identity.of_process(process.pid)
        taken(cluster, mine)
        assert not had(cluster), "it lives"
        process.kill()
    assert had(cluster), "it was of this machine, and is gone"
    # Of the same name, user and number, and yet elsewhere: a container, a laptop of that name.
    for name in ("namespace", "boot", "machine"):
        other = {**mine, "process": {**mine["process"], name: "another"}}
        taken(cluster, other)
        assert not had(cluster), name
        cluster.orchestrator.agent.ask(UnlockRequest(f"{cluster.name}/provision", "theirs"))
    # An earlier version does not say where it is.
    mine.pop("process")
    taken(cluster, mine)
    assert not had(cluster)
    taken(cluster, mine, seconds=0)
    assert had(cluster), "it has expired"


@pytest.mark.faults
@pytest.mark.long
def test_a_run_whose_state_is_cut_off_is_in_nobodys_way_and_not_doubled(tmp_path: Path) -> None:
    with lent(tmp_path / "place", "cut-off") as place:
        job = place.job(steps=1000)
        started = place.flambe(job, "--cluster", place.cluster, "--detach")
        assert started.returncode == 0, started.stderr
        (state,) = (tmp_path / "place").rglob("runs/cut-off/status.json")
        marker = json.loads(state.read_text())["marker"]
        for damaged in ([state], [state, state.with_name("status.json.last")]):
            for path in damaged:
                path.write_text("")
            again = place.flambe(job, "--cluster", place.cluster)
            assert again.returncode == 1
            assert "the cluster is in use: " in again.stderr
            assert "--force stops it, and starts this one" in again.stderr
            assert "running" in place.flambe("status", "cut-off").stdout
        assert "step 0" in place.flambe("logs", "cut-off").stdout
        other = place.flambe(place.job(steps=1), "--cluster", place.cluster, "--force")
        assert other.returncode == 0, other.stderr
        assert json.loads(state.read_text())["marker"] != marker
        assert "with exit code 0" in place.flambe("status", "cut-off").stdout


HOLDS = """
import sys
from pathlib import Path
from flambe.cluster import LocalCluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.provisioning import lock
cluster = LocalCluster(sys.argv[1], 0)
cluster.hosts = tuple([ClusterHost(m, cluster.local, cluster.remote_dir) for m in cluster.find_machines()])
cluster.hosts[0].connect()
with lock.held(cluster.context, "provision", "preparing the cluster"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.root
def test_a_holder_in_a_container(cluster: LocalCluster) -> None:
    """Its number is nobody's here."""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", HOLDS, cluster.name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        assert not had(cluster)
        holder.stdin.close()
        assert holder.wait(60) == 0
    assert had(cluster)
