"""``remote_dir`` on another disk, which hosts may share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.place import Place
from tests.metal import Host
from tests.metal.conftest import lent

pytestmark = pytest.mark.integration

ROOT = "/data/flambe"


# Mounts a folder of this machine in the file system of a process: as a disk of the network, whose
# files and locks are the same for all.
SHARE = """
import ctypes, os, sys
pid, source, target = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def check(code):
    if code < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return code
tree = check(libc.syscall(428, -100, source.encode(), 1))  # open_tree, a clone
with open(f"/proc/{pid}/ns/mnt") as space:
    check(libc.setns(space.fileno(), 0x20000))
os.makedirs(target, exist_ok=True)
check(libc.syscall(429, tree, b"", -100, target.encode(), 4))  # move_mount
"""


def share(host: Host, source: Path, target: str) -> None:
    """Mount a folder of this machine on a host."""
    from tests.metal.machine import child

    holder = host.claim.hosts()[host.name]
    command = [sys.executable, "-c", SHARE, str(child(holder)), str(source), target]
    subprocess.run(command, check=True, timeout=30)


@pytest.mark.root
@pytest.mark.xdist_group("metal-folders")
@pytest.mark.long
def test_everything_of_flambe_is_on_another_disk(tmp_path: Path) -> None:
    with lent(2) as metal:
        for host in metal.hosts:
            host.run("mkdir", "-p", "/data")
            host.run("chown", f"{host.user}:{host.user}", "/data")
        place = Place(
            tmp_path,
            metal.cluster_yaml(
                "disk", remote_dir=ROOT, setup_cmds=["pip --version", "echo $PATH > path"]
            ),
        )
        secrets = tmp_path / "secrets.ini"
        secrets.write_text("[API]\ntoken = canary-4712\n[flambe]\nfactories = API\n")
        secrets.chmod(0o600)
        run = place.flambe(place.job(steps=1), "-c", place.cluster, "-s", secrets)
        assert run.returncode == 0, run.stderr
        assert run.stdout.count("host content") == 2
        assert "secret ***" in run.stdout
        for host in metal.hosts:
            home = host.root / "home" / host.user
            assert not (home / ".flambe").exists()
            assert len(list((host.root / "data/flambe/envs").glob("*/flambe.json"))) == 1
            assert f":{ROOT}/bin" in (home / "path").read_text()
            assert list((host.root / "data").rglob("secrets.ini")) == []
        again = place.flambe(place.job(steps=1), "-c", place.cluster)
        assert "everything is in place" in again.stdout
        fetched = place.flambe("fetch", "disk", "fetched")
        assert fetched.returncode == 0, fetched.stderr
        assert (tmp_path / "fetched" / "result.txt").read_text() == "the result"
        owner = (tmp_path / "fetched" / "result.txt").stat().st_uid
        assert owner == tmp_path.stat().st_uid, "what is fetched belongs to who fetches it"
        down = place.flambe("down", "disk")
        assert down.returncode == 0, down.stderr
        assert f"--all -- rm -r {ROOT}" in down.stdout
        removed = place.flambe("exec", place.cluster, "--all", "--", "rm", "-r", ROOT)
        assert removed.returncode == 0, removed.stderr
        assert [list((host.root / "data").iterdir()) for host in metal.hosts] == [[], []]


@pytest.mark.long
@pytest.mark.root
@pytest.mark.xdist_group("metal-folders")
def test_hosts_that_share_the_folder(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with lent(3) as metal:
        for host in metal.hosts:
            share(host, disk, "/data")
        metal.hosts[0].run("chmod", "777", "/data")
        place = Place(tmp_path, metal.cluster_yaml("shared", remote_dir=ROOT, setup_cmds=["true"]))
        secrets = tmp_path / "secrets.ini"
        secrets.write_text(
            "[API]\ntoken = canary-4713\n[MORE]\nk = v\n[flambe]\nfactories = MORE\n"
        )
        secrets.chmod(0o600)
        run = place.flambe(place.job(steps=1), "-c", place.cluster, "-s", secrets)
        assert run.returncode == 0, run.stderr
        assert "installing it on" not in run.stdout, "the environment is made once"
        assert "secret ***" in run.stdout, "what the factories get took nothing away"
        assert len(list((disk / "flambe/envs").glob("*/flambe.json"))) == 1
        states = sorted(path.name for path in (disk / "flambe" / "hosts").iterdir())
        assert states == sorted(host.name for host in metal.hosts)
        assert list(disk.rglob("secrets.ini")) == []
        again = place.flambe(place.job(steps=1), "-c", place.cluster)
        assert "everything is in place" in again.stdout
        down = place.flambe("down", "shared")
        assert down.returncode == 0, down.stderr
        assert (disk / "flambe/clusters/shared/work/result.txt").exists()


@pytest.mark.parametrize("path", ["/data/flambe", "../flambe", "a b", "~/flambe", "a/./b", ""])
def test_folders_that_cannot_be(tmp_path: Path, path: str) -> None:
    place = Place(tmp_path, f"!LocalCluster {{name: x, remote_dir: '{path}'}}\n")
    done = place.flambe(place.cluster)
    assert done.returncode == 2
    assert "remote_dir is a path" in done.stderr
    assert f"{place.cluster}:1:" in done.stderr


def test_a_script_names_a_path_from_anywhere() -> None:
    from flambe.cluster.layout import in_shell

    for path, wanted in ((".flambe", "/h/.flambe"), (ROOT, ROOT)):
        done = subprocess.run(
            ["sh", "-c", f"printf %s {in_shell(path)}/bin"],
            env={"HOME": "/h"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{wanted}/bin"
