"""A client that is not like its hosts: another platform, an old rsync, a long home.

There is no such machine here: where a test says so, what tells the client's platform, or its
rsync's version, is a fake. The hosts, and what is downloaded for them, are real.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster.environment import download, pip_config, target
from flambe.cluster.environment.target import Target
from flambe.errors import ConfigError, RemoteError, RunError
from flambe.packaging import closure, wheel
from flambe.remote import Address, Connection, Login, transfer
from flambe.remote.agent import record
from flambe.remote.agent.protocol import Facts
from tests.cluster.conftest import connected, ssh_cluster
from tests.cluster.environment.test_environments import cut_off, make, proven
from tests.experiment.lab import COMMAND
from tests.metal.conftest import lent

pytestmark = [pytest.mark.xdist_group("metal-platforms")]

ARM = Target("linux-aarch64", "glibc-2.31", "3.12.4")
AARCH64 = 183  # e_machine of ELF


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pretend that this machine is a Mac; nothing was downloaded for others yet."""
    monkeypatch.setattr(target, "here", lambda: "darwin-arm64")
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))


# -- another platform -----------------------------------------------------------------------------


@pytest.mark.root
def test_a_mac_prepares_hosts_that_reach_an_index(mac: None) -> None:
    with lent(1) as metal:
        cluster = ssh_cluster(metal)
        make(cluster)
        proven(cluster)
        (host,) = metal.hosts
        told = host.run(f"/home/{host.user}/.flambe/bin/uv", "--version").stdout
        assert told.split()[1] == metadata.version("uv")
        kept = cluster.local.folder.parents[1] / "uv"
        assert len(list(kept.glob("*/uv"))) == 1
        # It is downloaded once.
        before = [path.stat().st_mtime_ns for path in kept.glob("*/uv")]
        download.uv_program(Target(**vars(_target(cluster))))
        assert [path.stat().st_mtime_ns for path in kept.glob("*/uv")] == before


def _target(cluster: Any) -> Target:
    return target.target_of(cluster.hosts, cluster.hosts[0].facts.python)


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.root
def test_a_mac_sends_wheels_for_hosts_that_reach_no_index(mac: None) -> None:
    with lent(2) as metal, cut_off(metal):
        cluster = ssh_cluster(metal, environment={"offline": True})
        make(cluster)
        proven(cluster)
        # Compiled ones were made for the hosts, and pure ones are those of this machine.
        sent = download.wheels(closure.compute_closure(["flambe"]), _target(cluster))
        names = {path.name.partition("-")[0].lower(): path.name for path in sent}
        assert "manylinux" in names["numpy"]
        assert names["rich"].endswith("-py3-none-any.whl")


@pytest.mark.integration
def test_uv_for_a_processor_that_is_not_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))
    program = download.uv_program(ARM)
    head = program.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    assert struct.unpack("<H", head[18:20]) == (AARCH64,)
    assert os.access(program, os.X_OK)
    alpine = download.uv_program(Target("linux-x86_64", "-", "3.12.4"))
    assert "-musl/" in str(alpine)
    done = subprocess.run([alpine, "--version"], capture_output=True, text=True, check=True)
    assert metadata.version("uv") in done.stdout  # it is linked statically


def test_what_cannot_be_downloaded_is_told(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(RunError, match="its program uv cannot be downloaded") as raised:
        download.uv_program(ARM)
    assert "pip config list" in str(raised.value)
    assert f"uv=={metadata.version('uv')}" in str(raised.value)


def test_a_program_that_was_altered_is_refused(tmp_path: Path) -> None:
    """As a mirror without hashes could give it."""
    import zipfile

    version = metadata.version("uv")
    path = tmp_path / f"uv-{version}-py3-none-manylinux_2_17_x86_64.whl"

    def pack(program: bytes, listed: bytes) -> None:
        with zipfile.ZipFile(path, "w") as made:
            made.writestr(f"uv-{version}.data/scripts/uv", program)
            row = (
                f"uv-{version}.data/scripts/uv,sha256={record.encode_sha256(listed)},{len(listed)}"
            )
            made.writestr(f"uv-{version}.dist-info/RECORD", f"{row}\n")

    pack(b"program", b"program")
    assert download._extract_uv(path, version) == b"program"
    pack(b"Program", b"program")
    with pytest.raises(RunError, match="is not what it says it is"):
        download._extract_uv(path, version)
    pack(b"program", b"program")
    with pytest.raises(RunError, match="is not what it says it is"):
        download._extract_uv(path, "0.0.1")


def test_compiled_code_of_ours_is_refused(mac: None, tmp_path: Path) -> None:
    built = wheel.Wheel("ext", "1", tmp_path / "ext-1-cp311-cp311-macosx_11_0_arm64.whl", "", "")
    with pytest.raises(ConfigError, match="ext has compiled parts") as raised:
        target.refuse_compiled([built], ARM)
    assert "darwin-arm64" in str(raised.value)
    assert "Python 3.12.4 on linux-aarch64" in str(raised.value)
    pure = wheel.Wheel("ext", "1", tmp_path / "ext-1-py3-none-any.whl", "", "")
    target.refuse_compiled([pure], ARM)


def test_hosts_of_several_platforms_are_refused() -> None:
    class Named:
        def __init__(self, name: str, platform: str) -> None:
            self.name = name
            self.machine = self
            self.facts = Facts(platform=platform, libc="glibc-2.31")

    hosts: Any = [Named("orchestrator", "linux-x86_64"), Named("factory_1", "linux-aarch64")]
    told = "linux-x86_64 on orchestrator; linux-aarch64 on factory_1"
    with pytest.raises(ConfigError, match=told):
        target.target_of(hosts, "3.11.2")
    hosts[1].facts = Facts(platform="linux-x86_64", libc="glibc-2.28")
    assert target.target_of(hosts, "3.11.2").glibc == 28


def test_what_fits() -> None:
    assert ARM.tags[:2] == ["manylinux_2_31_aarch64", "manylinux_2_30_aarch64"]
    assert ARM.tags[-1] == "manylinux1_aarch64"
    assert ARM.for_uv == "aarch64-manylinux_2_31"
    assert Target("linux-x86_64", "glibc-2.99", "3.12.4").for_uv == "x86_64-manylinux_2_40"
    assert Target("linux-x86_64", "glibc-2.27", "3.12.4").for_uv == "x86_64-manylinux_2_17"
    own = Target(target.here(), "glibc-2.36", ".".join(map(str, sys.version_info[:3])))
    assert own.is_here
    assert not ARM.is_here


def test_settings_of_pip_for_uv() -> None:
    said = (
        "global.extra-index-url='\\nhttps://one/simple\\nhttps://two/simple'\n"
        ":env:.no-index='0'\nglobal.trusted-host='one'\nglobal.cert='/ca.pem'\n"
    )
    settings = pip_config.parse(said)
    assert settings["cert"] == "/ca.pem"
    words = pip_config.uv_options(settings)
    assert [words[n + 1] for n, word in enumerate(words) if word == "--index"] == [
        "https://one/simple",
        "https://two/simple",
    ]
    # uv takes this once.
    assert words.count("--index-strategy") == 1
    assert "--no-index" not in words


# -- rsync ----------------------------------------------------------------------------------------


def test_an_edit_within_the_same_second_is_sent(members: Any, tmp_path: Path) -> None:
    """To a file that keeps its size: by one copy, and by the one from host to host."""
    first, second = members
    for member in members:
        member.refresh("metal")
    cluster = first_cluster(members)
    file = tmp_path / "data" / "weights"
    file.parent.mkdir()
    for number, text in enumerate(("one", "two", "six")):
        file.write_text(text)
        os.utime(file, ns=(10**18 + number, 10**18 + number))
        first.send(file.parent, "same-second", delete=True)
        assert first.read("same-second/weights") == text
        first.fetch("same-second/", tmp_path / "back")
        assert (tmp_path / "back" / "weights").read_text() == text
        cluster.files.give(["same-second/"], "same-second", second)
        assert second.read("same-second/weights") == text


def first_cluster(members: Any) -> Any:
    """Return a cluster whose hosts reach one another."""
    from flambe.cluster import SSHCluster
    from flambe.cluster.provisioning import cluster_keys

    cluster = SSHCluster("metal", "unused")
    cluster.hosts = tuple(members)
    cluster_keys.distribute("metal", members)
    return cluster


def test_which_rsyncs_compare_nanoseconds() -> None:
    new, old = (3, 2, 7), (3, 1, 2)
    assert "--modify-window=-1" in transfer.options(new, new)
    assert "--modify-window=-1" in transfer.options(new, ())
    assert "--modify-window=-1" not in transfer.options(new, old)
    assert transfer.parsed("rsync  version v3.2.7  protocol version 31\n") == new
    assert transfer.parsed("rsync  version 3.1.2  protocol version 31\n") == old


@pytest.mark.parametrize(
    "told",
    [
        "rsync  version 2.6.9  protocol version 29\nCopyright (C) 1996-2006",
        "openrsync: protocol version 29\nrsync version 2.6.9 compatible",
    ],
    ids=["2006", "openrsync"],
)
def test_the_rsync_of_a_mac_is_refused_before_anything(tmp_path: Path, told: str) -> None:
    """A program that tells its version as that of macOS does stands in for it."""
    program = tmp_path / "bin" / "rsync"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\n")
    program.chmod(0o755)
    file = tmp_path / "cluster.yaml"
    file.write_text("!SSHCluster {name: a, orchestrator_ip: 192.0.2.1}\n")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(file)],
        env={
            **os.environ,
            "FLAMBE_HOME": str(tmp_path / "home"),
            "PATH": f"{program.parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert "brew install rsync" in done.stderr
    assert "this machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_rsync_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    transfer._version.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    try:
        with pytest.raises(RemoteError, match="rsync is not installed"):
            transfer.check()
    finally:
        transfer._version.cache_clear()


# -- sockets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ann", "a" * 60, "ä" * 35], ids=["short", "long", "umlauts"])
def test_a_control_socket_fits_into_104_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """On macOS, for the name that ssh makes of it while it connects."""
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / name / ".flambe"))
    login = Login(Address("192.0.2.1", 22), name, tmp_path / "known")
    socket = Connection(login).socket
    assert len(os.fsencode(socket)) + 17 + 1 <= 104


@pytest.mark.root
def test_a_connection_of_a_user_with_a_long_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / ("ä" * 45) / ".flambe"))
    with lent(1) as metal:
        (member,) = connected(ssh_cluster(metal))
        assert member.run(["hostname"]).stdout.strip() == metal.hosts[0].name
