"""A Python that uv brings: once for all hosts, whatever python3 they have of their own.

uv's builds are far away, and may be out of reach: a Python of this machine, packed as they are and
named in a list as uv has it, stands in for them. Everything else, uv included, is real.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster.environment import interpreter
from flambe.errors import ConfigError, RemoteError, RunError
from flambe.remote.agent.protocol import Facts
from tests.cluster.conftest import said_of, ssh_cluster
from tests.cluster.environment.test_environments import cut_off, make, proven
from tests.cluster.environment.test_pythons import Interpreter, interpreters
from tests.metal import Metal
from tests.metal.conftest import lent

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("metal-interpreter")]

FACTS = Facts(platform="linux-x86_64", libc="glibc-2.36", python="3.11.2")


def pack(one: Interpreter, folder: Path) -> dict[str, Any]:
    """Pack a Python as uv's builds are; return its entry for uv's list of builds."""
    version = one.version
    tree = folder / version / "python"
    program = tree / "bin" / f"python{one.minor[0]}.{one.minor[1]}"
    program.parent.mkdir(parents=True)
    # It finds its library beside itself, wherever it is.
    own = os.fsencode(one.base / "lib")
    moved = b"$ORIGIN/../lib".ljust(len(own), b"\0")
    program.write_bytes(one.program.read_bytes().replace(own, moved))
    program.chmod(0o755)
    for name in ("python3", "python"):
        (program.parent / name).symlink_to(program.name)
    library = Path("lib") / program.name
    left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "ensurepip")
    shutil.copytree(one.base / library, tree / library, ignore=left_out, symlinks=True)
    (tree / library / "site-packages").mkdir()
    for shared in (one.base / "lib").glob("libpython*.so*"):
        shutil.copy2(shared, tree / "lib" / shared.name)
    archive = folder / f"cpython-{version}-install_only_stripped.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as made:
        made.add(tree, "python")
    shutil.rmtree(folder / version)
    numbers = dict(zip(("major", "minor", "patch"), map(int, version.split(".")), strict=True))
    return {
        **numbers,
        "name": "cpython",
        "arch": {"family": os.uname().machine, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "prerelease": "",
        "url": archive.name,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None,
        "build": "20240101",
    }


class Builds:
    """A server of builds on an address, and what it was asked for."""

    def __init__(self, folder: Path, address: str) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                asked.append(self.path)

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer((address, 0), handler)
        self.url = f"http://{address}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a folder with the build of a Python of the minor version that runs this."""
    fits = [
        one
        for one in interpreters()
        if one.minor == sys.version_info[:2] and one.version != _own_of_hosts()
    ]
    if not fits:
        pytest.skip("this machine has no Python of this minor version but the system's")
    folder = tmp_path_factory.mktemp("builds")
    return folder, pack(fits[-1], folder)


def _own_of_hosts() -> str:
    done = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


@contextlib.contextmanager
def builds(packed: tuple[Path, dict[str, Any]], address: str) -> Iterator[Builds]:
    """Serve it, in a list as uv has it."""
    folder, entry = packed
    served = Builds(folder, address)
    key = f"cpython-{version(packed)}-linux-{entry['arch']['family']}-gnu"
    listed = {key: {**entry, "url": f"{served.url}/{entry['url']}"}}
    (folder / "builds.json").write_text(json.dumps(listed))
    try:
        yield served
    finally:
        served.close()


def version(packed: tuple[Path, dict[str, Any]]) -> str:
    entry = packed[1]
    return f"{entry['major']}.{entry['minor']}.{entry['patch']}"


def has(cluster: Any, wanted: str) -> None:
    """Every host runs it, from a folder of its own."""
    name = cluster.local.recall().environment
    script = "import platform, sys; print(platform.python_version(), sys.base_prefix)"
    for member in cluster.hosts:
        said = member.run([f".flambe/envs/{name}/bin/python", "-c", script]).stdout.split()
        assert said[0] == wanted
        assert f"/.flambe/pythons/cpython-{wanted}-" in said[1]


def options(served: Builds, **more: Any) -> dict[str, Any]:
    minor = f"3.{sys.version_info.minor}"
    return {"python": minor, "python_mirror": f"{served.url}/builds.json", **more}


@pytest.mark.long
@pytest.mark.root
def test_hosts_with_different_pythons_get_one(packed: tuple[Path, dict[str, Any]]) -> None:
    # One that is too old for flambe itself is good enough to look at the host.
    others = [one for one in interpreters() if one.minor > (3, 7)]
    others = [one for one in others if one.version != _own_of_hosts()]
    with lent(2) as metal, builds(packed, metal.gateway) as served:
        others[0].put(metal.hosts[1])
        cluster = ssh_cluster(metal, environment=options(served))
        told = make(cluster)
        assert any(f"Python {version(packed)} (cpython-" in note for note in told.notes)
        proven(cluster)
        has(cluster, version(packed))
        # It was downloaded once, by the orchestrator; and is not again.
        archives = [path for path in served.asked if "install_only" in path]
        assert len(archives) == 1
        again = ssh_cluster(metal, environment=options(served))
        assert make(again).notes == ["everything is in place"]
        assert len([path for path in served.asked if "install_only" in path]) == 1


@pytest.mark.root
def test_a_python_that_cannot_even_tell_what_a_host_is() -> None:
    old = [one for one in interpreters() if one.minor < (3, 7)]
    if not old:
        pytest.skip("this machine has no such Python")
    with lent(1) as metal:
        old[0].put(metal.hosts[0])
        with pytest.raises(RemoteError, match="its python3 is too old: install 3.10 or newer"):
            make(ssh_cluster(metal))


@pytest.mark.root
@pytest.mark.long
def test_hosts_that_reach_nothing_are_sent_it(
    packed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))
    with lent(2) as metal, cut_off(metal), builds(packed, "127.0.0.1") as served:
        cluster = ssh_cluster(metal, environment=options(served, offline=True))
        make(cluster)
        proven(cluster)
        has(cluster, version(packed))


@pytest.mark.root
def test_a_build_that_was_altered_or_is_not_there_is_refused(
    packed: tuple[Path, dict[str, Any]],
) -> None:
    folder, entry = packed
    with lent(1) as metal, builds(packed, metal.gateway) as served:
        listed = json.loads((folder / "builds.json").read_text())
        (build,) = listed.values()
        build["sha256"] = "0" * 64
        (folder / "altered.json").write_text(json.dumps(listed))
        refused(metal, f"{served.url}/altered.json", "[Hh]ash mismatch")
        build["url"] = f"{served.url}/nowhere.tar.gz"
        (folder / "gone.json").write_text(json.dumps(listed))
        refused(metal, f"{served.url}/gone.json", "nowhere.tar.gz")
        (host,) = metal.hosts
        script = f"ls /home/{host.user}/.flambe/envs/*/flambe.json || true"
        assert host.run("sh", "-c", script).stdout == ""
    assert entry["sha256"] != "0" * 64


def refused(metal: Metal, mirror: str, told: str) -> None:
    asked = {"python": f"3.{sys.version_info.minor}", "python_mirror": mirror}
    with pytest.raises(RemoteError, match=told) as raised:
        make(ssh_cluster(metal, environment=asked))
    assert "installing the environment" in str(raised.value)


def test_the_newest_patch_is_taken_of_those_that_uv_knows() -> None:
    found = interpreter._build("3.12", (), FACTS)
    assert found.key == f"cpython-{found.version}-linux-x86_64-gnu"
    assert tuple(map(int, found.version.split("."))) >= (3, 12, 1)
    exact = interpreter._build("3.12.4", (), FACTS)
    assert (exact.version, exact.key) == ("3.12.4", "cpython-3.12.4-linux-x86_64-gnu")
    alpine = interpreter._build("3.12", (), replace(FACTS, libc="-"))
    assert alpine.key == f"cpython-{alpine.version}-linux-x86_64-musl"
    arm = interpreter._build("3.12.4", (), replace(FACTS, platform="linux-aarch64"))
    assert arm.key == "cpython-3.12.4-linux-aarch64-gnu"
    with pytest.raises(ConfigError, match="there is no Python 3.12.99 for linux-x86_64"):
        interpreter._build("3.12.99", (), FACTS)
    # Where the builds come from is uv's matter, or a mirror's.
    mirror = interpreter._mirror("https://mirror/builds")
    assert "--mirror https://mirror/builds cpython-" in " ".join(
        interpreter._build("3.12.4", mirror, FACTS).install("pythons")
    )


def test_a_client_that_cannot_download_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path))
    mirror = ("--mirror", "http://127.0.0.1:9/builds")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(RunError, match="cannot be downloaded here") as raised:
        interpreter._build("3.12.4", mirror, FACTS).installed_here()
    assert "python_mirror" in str(raised.value)
    assert "127.0.0.1:9" in str(raised.value)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("python: 3.10", "'3.12'"),
        ("python: '3.9'", "flambe needs 3.10 or newer"),
        ("python: 'three'", "a version such as"),
        ("python: '>=3.10'", "a version such as"),
        ("python_mirror: 3", "python_mirror cannot be 3"),
        ("python: '3.12', system: true", "python means nothing"),
    ],
)
def test_what_may_be_written(tmp_path: Path, written: str, told: str) -> None:
    text = said_of(tmp_path, f"environment: {{{written}}}")
    assert "environment: " in text
    assert told in text
