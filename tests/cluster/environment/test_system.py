"""Hosts whose image has all the packages: their own Python is used as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from flambe.errors import RunError
from flambe.packaging import closure, wheel
from flambe.testing import RecordingObserver
from tests.cluster.conftest import said_of, ssh_cluster
from tests.cluster.environment.test_environments import cut_off
from tests.metal import Metal
from tests.metal.conftest import lent

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal-system")]

SITE = f"/usr/local/lib/python3.{sys.version_info.minor}/dist-packages"  # of Debian's python3
OPTIONS = {"system": True}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that flambe needs, installed as an image has it; not flambe itself."""
    folder = tmp_path_factory.mktemp("image")
    wheels = [
        wheel.repack(metadata.distribution(name), folder / "wheels").path
        for name in closure.compute_closure(["flambe"]).versions
    ]
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--offline", "--no-deps"]
    command += ["--target", str(folder / "site"), *map(str, wheels)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "site"


@pytest.fixture(scope="module")
def metal(packages: Path) -> Iterator[Metal]:
    """Lend two hosts with that image, which reach nothing but one another.

    Each test has a folder of its own on them, and leaves their packages as they were.
    """
    own = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=True)
    if own.stdout.split()[1].rpartition(".")[0] != f"3.{sys.version_info.minor}":
        pytest.skip("this Python and the system's are of different minor versions")
    with lent(2) as hosts, cut_off(hosts):
        for host in hosts.hosts:
            place = host.root / SITE.lstrip("/")
            shutil.copytree(packages, place, symlinks=True, dirs_exist_ok=True)
        yield hosts


def make(metal: Metal, folder: str) -> tuple[RecordingObserver, list[str]]:
    cluster = ssh_cluster(metal, environment=OPTIONS, remote_dir=folder)
    told = RecordingObserver()
    cluster.run(observer=told)
    name = cluster.local.recall().environment
    script = "import flambe, ray, sys; print(flambe.__file__, ray.__file__)"
    python = f"{folder}/envs/{name}/bin/python"
    lines = [m.run([python, "-c", script], deadline=120).stdout for m in cluster.hosts]
    return told, lines


def test_only_our_code_is_put_on_top_and_it_is_proven(metal: Metal) -> None:
    told, lines = make(metal, ".flambe")
    for line in lines:
        flambe, ray = line.split()
        assert "/.flambe/envs/" in flambe
        assert ray == f"{SITE}/ray/__init__.py"
    assert not [note for note in told.notes if "warning" in note]
    told, _ = make(metal, ".flambe")
    assert told.notes == ["everything is in place"]
    # Nothing but our code is in there.
    for host in metal.hosts:
        place = f"/home/{host.user}/.flambe"
        found = host.run("sh", "-c", f"ls -d {place}/envs/*/lib/python3*/site-packages/*.dist-info")
        assert [Path(line).name.partition("-")[0] for line in found.stdout.split()] == ["flambe"]
    # One altered byte, as anywhere.
    host = metal.hosts[1]
    place = f"/home/{host.user}/.flambe/envs/*/lib/python3*/site-packages/flambe/errors.py"
    host.run("sh", "-c", f"for file in {place}; do echo >> $file; done")
    with pytest.raises(RunError, match="flambe/errors.py was altered") as raised:
        make(metal, ".flambe")
    assert "factory_1" in str(raised.value)


def rename_rich(metal: Metal, version: str, other: str) -> None:
    """Make a version of a package another one, to whoever asks for it."""
    for host in metal.hosts:
        script = f"cd {SITE} && mv rich-{version}.dist-info rich-{other}.dist-info && "
        script += (
            f"sed -i 's/^Version: {version}$/Version: {other}/' rich-{other}.dist-info/METADATA"
        )
        host.run("sh", "-c", script)


def test_other_versions_are_told_and_missing_packages_are_refused(metal: Metal) -> None:
    first, second = metal.hosts
    version = metadata.version("rich")
    rename_rich(metal, version, "1.2.3")
    host = second
    host.run("sh", "-c", f"rm -r {SITE}/requests {SITE}/requests-*.dist-info")
    host.run("sh", "-c", f"rm -r {SITE}/msgpack {SITE}/msgpack-*.dist-info")
    host.run("sh", "-c", "rm -rf /usr/lib/python3/dist-packages/requests*")
    with pytest.raises(RunError, match="factory_1 lacks") as raised:
        make(metal, ".flambe-2")
    text = str(raised.value)
    assert "msgpack (for ray)" in text
    assert "requests (for " in text
    assert "orchestrator" not in text
    for one in metal.hosts:
        assert "envs" not in one.run("ls", f"/home/{one.user}/.flambe-2").stdout
    # As its administrator mends it.
    for name in ("requests", "msgpack"):
        for path in (first.root / SITE.lstrip("/")).glob(f"{name}*"):
            shutil.copytree(path, second.root / SITE.lstrip("/") / path.name, symlinks=True)
    told, _ = make(metal, ".flambe-2")
    warning = f"warning: rich is {version} here, and 1.2.3 on orchestrator, factory_1"
    assert [note for note in told.notes if "warning" in note] == [warning]
    # Each time: a run may depend on it.
    told, _ = make(metal, ".flambe-2")
    assert told.notes == ["everything is in place", warning]
    rename_rich(metal, "1.2.3", version)


def test_packages_of_a_user_do_not_count(metal: Metal) -> None:
    """Runs do not see them, and what a host has is what runs see."""
    host = metal.hosts[1]
    user = f"/home/{host.user}/.local/lib/python3.{sys.version_info.minor}/site-packages"
    host.run("mkdir", "-p", user, user=host.user)
    host.run("sh", "-c", f"mv {SITE}/msgpack {SITE}/msgpack-*.dist-info {user}")
    with pytest.raises(RunError, match="factory_1 lacks msgpack"):
        make(metal, ".flambe-3")
    host.run("sh", "-c", f"mv {user}/msgpack* {SITE}")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("system: 3", "system cannot be 3"),
        ("system: true, offline: true", "with system nothing is installed"),
        ("system: true, index_url: https://x/simple", "index_url means nothing"),
        ("offline: sometimes", "offline cannot be 'sometimes'"),
        ("extras: learn", "extras cannot be 'learn'"),
        ("find_links: 3", "find_links cannot be 3"),
        ("index_url: simple", "index_url is not a URL"),
        ("sistem: true", "did you mean 'system'?"),
    ],
)
def test_what_may_be_written(tmp_path: Path, options: str, told: str) -> None:
    text = said_of(tmp_path, f"environment: {{{options}}}")
    assert "environment: " in text
    assert told in text
    assert os.fspath(tmp_path / "cluster.yaml") in text
