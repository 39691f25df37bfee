"""GPUs that somebody else uses, on real hosts.

There is no GPU here: a program that answers as nvidia-smi does stands in for it, and for nothing
else. The processes that it tells of are real ones, of real users of the hosts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flambe.cli.hosts_table import hosts_table
from flambe.cluster.provisioning.gpu_selection import UNKNOWN_USER, other_users
from flambe.remote import command
from flambe.remote.agent.protocol import Gpu, GpuProcess, StartRequest, StopRequest
from flambe.testing import RecordingObserver
from tests.cluster.conftest import said_of, ssh_cluster
from tests.metal import Host, Metal

EQUIPPED = True  # its hosts have flambe's environments from the start

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal-gpus")]

FAKE = """#!/bin/sh
case "$1" in
--query-gpu=index,uuid,name,memory.total,memory.used,utilization.gpu) cat /srv/gpus ;;
--query-compute-apps=gpu_uuid,pid,used_memory) cat /srv/processes ;;
*) exit 2 ;;
esac
"""
KIND = "NVIDIA A10G"


def plug_in(host: Host, used: list[int], processes: str = "") -> None:
    """Let a host have GPUs of which so many MiB each are in use, and what runs on them."""
    rows = [f"{n}, GPU-{n}, {KIND}, 23028, {mib}, 0" for n, mib in enumerate(used)]
    host.run("tee", "/srv/gpus", input="".join(f"{row}\n" for row in rows))
    host.run("tee", "/srv/processes", input=processes)
    host.run("tee", "/usr/local/bin/nvidia-smi", input=FAKE)
    host.run("chmod", "755", "/usr/local/bin/nvidia-smi")


@contextlib.contextmanager
def sleeping(host: Host, user: str) -> Iterator[int]:
    """Run a process of a user of a host; yield its number there."""
    script = "setsid sleep 600 > /dev/null 2>&1 < /dev/null & echo $!"
    pid = host.run("sh", "-c", script, user=user).stdout.strip()
    try:
        yield int(pid)
    finally:
        host.run("kill", pid)


def make(cluster: Any) -> RecordingObserver:
    told = RecordingObserver()
    cluster.run(observer=told)
    return told


def shown(cluster: Any, number: int) -> str:
    """Return what the table says of the GPUs of a host."""
    table = hosts_table(cluster.name, cluster.hosts, prepared=True)
    (column,) = (column for column in table.columns if column.header == "GPUs")
    return str(list(column.cells)[number])


def test_those_of_others_are_shown_and_left_to_them(metal: Metal) -> None:
    host = metal.hosts[1]
    host.add_user("ann")
    with sleeping(host, "ann") as pid:
        # One that ann computes on, two that are free, one with memory in use and no process seen.
        plug_in(host, [9000, 3, 500, 8000], f"GPU-0, {pid}, 8990\n")
        cluster = ssh_cluster(metal, gpus="free")
        told = make(cluster)
        assert [member.gpus for member in cluster.hosts] == [[], ["GPU-1", "GPU-2"], []]
        text = f"2 of 4 × {KIND}, 2 in use by an unknown user, ann"
        assert any(f"gpus: free leaves {text}" in note for note in told.notes)
        assert shown(cluster, 1) == text
        assert shown(cluster, 0) == "-"
        # By default all are used, and who does so too is shown.
        everything = ssh_cluster(metal)
        assert "leaves" not in "".join(make(everything).notes)
        assert everything.hosts[1].gpus == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
        assert shown(everything, 1) == f"4 × {KIND}, 2 in use by an unknown user, ann"
    # It is looked at again each time.
    plug_in(host, [3, 3])
    again = ssh_cluster(metal, gpus="free")
    make(again)
    assert again.hosts[1].gpus == ["GPU-0", "GPU-1"]
    assert shown(again, 1) == f"2 × {KIND}"


def test_what_the_cluster_itself_runs_does_not_count(metal: Metal) -> None:
    host = metal.hosts[1]
    cluster = ssh_cluster(metal, gpus="free")
    make(cluster)
    member = cluster.hosts[1]
    for name in ("metal", "metal.node", "metal-2"):
        member.agent.ask(StartRequest(name, ["sleep", "600"]))
    runs = member.refresh("metal").runs
    own, node, other = (runs[name].pid for name in ("metal", "metal.node", "metal-2"))
    rows = [f"GPU-0, {own}, 8990", f"GPU-1, {node}, [N/A]", f"GPU-2, {other}, 8990"]
    plug_in(host, [9000, 9000, 9000], "".join(f"{row}\n" for row in rows))
    make(cluster)
    # Of another cluster of the same user: that is a colleague too.
    assert cluster.hosts[1].gpus == ["GPU-0", "GPU-1"]
    assert shown(cluster, 1) == f"2 of 3 × {KIND}, 1 in use by {host.user}"
    for name in ("metal", "metal.node", "metal-2"):
        member.agent.ask(StopRequest(name, 2.0))


def test_looking_costs_no_further_round_trip(metal: Metal, monkeypatch: pytest.MonkeyPatch) -> None:
    make(ssh_cluster(metal))
    plug_in(metal.hosts[1], [9000, 3])
    commands: list[str] = []
    original = command.run

    def count(*arguments: Any, **more: Any) -> Any:
        commands.append(str(arguments[1]))
        return original(*arguments, **more)

    monkeypatch.setattr(command, "run", count)
    cluster = ssh_cluster(metal, gpus="free")
    make(cluster)
    assert commands == ["flambe's agent: report"] * 3
    assert cluster.hosts[1].gpus == ["GPU-1"]


def test_an_nvidia_smi_that_fails_is_no_gpu(metal: Metal) -> None:
    plug_in(metal.hosts[1], [3])
    metal.hosts[1].run("tee", "/usr/local/bin/nvidia-smi", input="#!/bin/sh\nexit 9\n")
    cluster = ssh_cluster(metal, gpus="free")
    make(cluster)
    assert cluster.hosts[1].facts.gpus == []


def test_who_uses_a_gpu() -> None:
    gpu = Gpu(uuid="GPU-0", memory=1000, used=50)
    ours, hidden = GpuProcess(user="me", run="lab", pid=1), GpuProcess(pid=2)
    assert other_users(gpu, "lab") == []
    assert other_users(replace(gpu, used=51), "lab") == [UNKNOWN_USER]
    assert other_users(replace(gpu, used=900, processes=[ours]), "lab") == []
    assert other_users(replace(gpu, processes=[ours, hidden]), "lab") == [UNKNOWN_USER]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpus: some", "'all'"),
        ("gpus: 2", "'all'"),
    ],
)
def test_what_gpus_may_be(tmp_path: Path, text: str, told: str) -> None:
    assert told in said_of(tmp_path, text)
