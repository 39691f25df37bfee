"""Copies that are cut off: continued, whole under their names or not there, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.provisioning import cluster_keys
from flambe.errors import RemoteError, UnreachableError
from flambe.remote import Connection, resumable_copy, transfer
from tests.cluster.conftest import connected, ssh_cluster
from tests.cluster.place import Place, typed
from tests.metal import Metal
from tests.metal.host import Host as RealHost
from tests.metal.machine import command_line

pytestmark = pytest.mark.integration

MB = 2**20


def written(path: Path, megabytes: int) -> bytes:
    """Write a file that cannot be compressed; return what is in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = os.urandom(megabytes * MB)
    path.write_bytes(content)
    return content


def arrived(folder: Path) -> int:
    """Return how many bytes of a file are there that is on its way into a folder."""
    sizes = [0]
    with contextlib.suppress(OSError):
        for one in folder.rglob("*"):
            # What is continued is written where it is.
            if one.is_file() and (one.name[0] == "." or one.parent.name == resumable_copy.PARTIAL):
                sizes.append(one.stat().st_size)
    return max(sizes)


@contextlib.contextmanager
def cut(
    folder: Path, how: Callable[[], None], *, times: int = 1, for_good: bool = False
) -> Iterator[list[int]]:
    """Cut off what is on its way into a folder, each time when more of it is there; or for good."""
    over, cuts = threading.Event(), [0]

    def watch() -> None:
        least = MB
        while not over.wait(0.002) and cuts[0] < times:
            if arrived(folder) >= least:
                how()
                cuts[0] += 1
                over.wait(0.3)
                least = 0 if for_good else arrived(folder) + 1

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield cuts
    finally:
        over.set()
        thread.join()


def slow(monkeypatch: pytest.MonkeyPatch, megabytes: int) -> None:
    """Let copies send no more than so much a second, so that they can be cut."""
    original = transfer.options
    limit = f"--bwlimit={megabytes}m"
    monkeypatch.setattr(transfer, "options", lambda *versions: [*original(*versions), limit])


@pytest.mark.xdist_group("hosts")
def test_a_copy_is_continued_when_the_connection_is_lost(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable_copy, "WAIT_FIRST", 0.05)
    (host,) = connected(local(0))
    home = host.machine.key.parent / "home"  # type: ignore[union-attr]
    slow(monkeypatch, 20)
    content = written(tmp_path / "big" / "data", 24)

    def lose() -> None:
        assert isinstance(host.connection, Connection)
        host.connection.control("exit")

    with cut(home / "sent", lose) as cuts:
        host.send(tmp_path / "big", "sent")
    assert cuts == [1]
    assert (home / "sent" / "data").read_bytes() == content
    with cut(tmp_path / "back", lose) as cuts:
        host.fetch("sent/", tmp_path / "back")
    assert cuts == [1]
    assert (tmp_path / "back" / "data").read_bytes() == content
    # Again and again: it is given up, and a later one goes on from there.
    with (
        cut(tmp_path / "there", lose, times=1000, for_good=True),
        pytest.raises(
            UnreachableError, match="the connection was lost (again and again )?while"
        ) as raised,
    ):
        host.fetch("sent/", tmp_path / "there")
    assert "the same command continues where it was" in str(raised.value)
    assert "rsync" not in str(raised.value)
    assert not (tmp_path / "there" / "data").exists()
    (partial,) = (tmp_path / "there").rglob(resumable_copy.PARTIAL)
    (partial / "gone").write_text("of a file that is no more")
    # What a run removes on the host meanwhile leaves nothing here.
    host.run(["mkdir", "-p", f"sent/{resumable_copy.PARTIAL}"])
    host.fetch("sent/", tmp_path / "there")
    assert (tmp_path / "there" / "data").read_bytes() == content
    host.send(tmp_path / "big", "sent", delete=True)
    for folder in (home / "sent", tmp_path / "there", tmp_path / "back"):
        assert sorted(path.name for path in folder.rglob("*")) == ["data"]


@pytest.mark.xdist_group("hosts")
def test_what_else_is_wrong_is_not_tried_again(local: Any, tmp_path: Path) -> None:
    (host,) = connected(local(0))
    with pytest.raises(RemoteError, match="No such file") as raised:
        host.fetch("nowhere/", tmp_path / "back")
    assert type(raised.value) is RemoteError
    assert "rsync error" not in str(raised.value)


@pytest.mark.xdist_group("hosts")
def test_a_file_that_is_written_is_whole_or_not_there(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes by the input ends early when the connection is lost: it is no file."""
    (host,) = connected(local(0))
    home = host.machine.key.parent / "home"  # type: ignore[union-attr]
    original, tries = ClusterHost.run, []

    def shorter(self: ClusterHost, command: Any, **more: Any) -> Any:
        if "content" in more:
            tries.append(1)
            more["content"] = more["content"][:-1]
        return original(self, command, **more)

    monkeypatch.setattr(ClusterHost, "run", shorter)
    with pytest.raises(RemoteError, match="writing some/file"):
        host.put("content", "some/file")
    assert tries
    assert list((home / "some").iterdir()) == []


# -- on real hosts --------------------------------------------------------------------------------


def sessions_end(host: RealHost) -> None:
    """Kill the sshd of each session, and nothing else."""
    for pid in host._sshds():
        # A session whose own parent was killed first is a child of the first process.
        if "[listener]" not in " ".join(command_line(pid)):
            with contextlib.suppress(OSError):
                os.kill(pid, 9)


@pytest.mark.root
@pytest.mark.faults
@pytest.mark.xdist_group("metal-ssh")
@pytest.mark.long
def test_sessions_that_are_killed_in_the_middle(
    metal: Metal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 MB on their way there, to another host, and 400 MB on their way back."""
    monkeypatch.setattr(resumable_copy, "WAIT_FIRST", 0.2)
    slow(monkeypatch, 100)
    cluster = ssh_cluster(metal)
    cluster.run()
    first, second = metal.hosts[:2]
    home = Path("home") / first.user
    content = written(tmp_path / "big" / "data", 300)
    with cut(first.root / home / "sent", lambda: sessions_end(first), times=2) as cuts:
        cluster.orchestrator.send(tmp_path / "big", "sent")
    assert cuts == [2]
    with cut(second.root / home / "sent", lambda: sessions_end(second), times=2) as cuts:
        cluster.files.spread("sent/", "sent")
    assert cuts == [2]
    for host in (first, second):
        assert (host.root / home / "sent" / "data").read_bytes() == content
        assert [path.name for path in (host.root / home / "sent").rglob("*")] == ["data"]


@pytest.mark.root
@pytest.mark.faults
@pytest.mark.xdist_group("metal-ssh")
@pytest.mark.long
def test_a_fetch_of_sessions_that_are_killed(metal: Metal, tmp_path: Path) -> None:
    place = Place(tmp_path / "place", metal.cluster_yaml("cut", factories_ips=[]))
    done = place.flambe(place.job(steps=1), "--cluster", place.cluster)
    assert done.returncode == 0, done.stderr
    host = metal.hosts[0]
    work = host.root / "home" / host.user / ".flambe/clusters/cut/work"
    content = written(work / "output__x" / "data", 400)
    target = place.folder / "f11"
    (tmp_path / "bin").mkdir()
    slower = tmp_path / "bin" / "rsync"
    slower.write_text(f'#!/bin/sh\nexec {shutil.which("rsync")} --bwlimit=4m "$@"\n')
    slower.chmod(0o755)
    place.env["PATH"] = f"{slower.parent}:{place.env['PATH']}"
    with cut(target, lambda: sessions_end(host), times=1000, for_good=True):
        lost = place.flambe("fetch", "cut", "f11")
    assert lost.returncode == 1
    assert "orchestrator (" in lost.stderr
    assert re.search("the connection was lost (again and again )?while", lost.stderr)
    assert "flambe fetch cut f11   continues where it was" in lost.stderr
    assert "rsync" not in lost.stderr
    assert not (target / "output__x" / "data").exists()
    before = max(path.stat().st_size for path in target.rglob(f"{resumable_copy.PARTIAL}/data"))
    assert before >= MB
    slower.unlink()
    with cut(target, lambda: sessions_end(host)):
        done = place.flambe("fetch", "cut", "f11")
    assert done.returncode == 0, done.stderr
    assert (target / "output__x" / "data").read_bytes() == content
    assert list(target.rglob(resumable_copy.PARTIAL)) == []


@pytest.mark.root
@pytest.mark.faults
@pytest.mark.xdist_group("metal-ssh")
def test_a_host_without_rsync_is_named(metal: Metal, tmp_path: Path) -> None:
    host = metal.hosts[1]
    away = host.run("sh", "-c", "command -v rsync").stdout.strip()
    host.run("mv", away, f"{away}.away")
    try:
        file = tmp_path / "cluster.yaml"
        file.write_text(metal.cluster_yaml("bare", remote_dir=".flambe-bare"))
        done = typed(tmp_path, file)
        assert done.returncode == 1
        assert "rsync is not installed on factory_1: apt-get install rsync" in done.stderr
        assert "exit code" not in done.stderr
        # As it is where nobody has looked before.
        cluster = ssh_cluster(metal)
        _, factory, _ = connected(cluster)
        for member in cluster.hosts:
            member.refresh("metal")
        cluster_keys.distribute("metal", cluster.hosts)
        missing = "rsync is not installed on factory_1: apt-get install rsync"
        with pytest.raises(RemoteError, match=missing):
            cluster.files.give(["/etc/hostname"], "x", factory)
        with pytest.raises(RemoteError, match=missing):
            factory.send(Path(__file__), "x")
    finally:
        host.run("mv", f"{away}.away", away)
    # A part of the results of nobody: what is wrong there is said, without rsync's own words.
    host.run("install", "-d", "-m", "555", "/home/ubuntu/closed")
    with pytest.raises(RemoteError, match="Permission denied") as raised:
        connected(ssh_cluster(metal))[1].send(Path(__file__), "closed/file")
    assert "rsync" not in str(raised.value)
