"""The same code on hosts of all sorts: bare ones, cut off ones, those with an index of their own."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from flambe.errors import RemoteError
from flambe.packaging import closure, wheel
from flambe.testing import RecordingObserver
from tests.cluster.conftest import connected, ssh_cluster
from tests.metal import Metal
from tests.metal.conftest import lent
from tests.metal.mounts import share

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.xdist_group("metal-environments"),
]

BARE = Path(__file__).parents[3] / "build" / "bare-debian"
INCLUDED = "python3,openssh-server,sudo,rsync,ca-certificates,iproute2,procps"


def make(cluster: Any) -> RecordingObserver:
    told = RecordingObserver()
    cluster.run(observer=told)
    return told


def proven(cluster: Any, *, runs: bool = True) -> None:
    """Every host has what is here; the run of a module shows where it comes from."""
    name = cluster.local.recall().environment
    for member in cluster.hosts:
        found = member.report.environment
        assert found is not None
        assert found.ours["flambe"].hash == wheel.wheel_of("flambe").content
        assert found.ours["flambe"].wrong == []
        versions = closure.compute_closure(["flambe"]).versions
        assert found.distributions["ray"] == versions["ray"]
        if not runs:
            continue
        command = [
            f".flambe/envs/{name}/bin/python",
            "-c",
            "import flambe, ray; print(flambe.__file__)",
        ]
        assert f"/envs/{name}/" in member.run(command, deadline=120).stdout


@contextlib.contextmanager
def cut_off(metal: Metal) -> Iterator[None]:
    """Let the hosts reach one another and this machine, and nothing else."""
    rule = ["OUTPUT", "!", "-d", "10.213.0.0/16", "-o", "eth0", "-j", "REJECT"]
    for host in metal.hosts:
        host.in_network("iptables", "-A", *rule)
    try:
        yield
    finally:
        for host in metal.hosts:
            host.in_network("iptables", "-D", *rule)


def test_hosts_that_reach_no_index(tmp_path: Path) -> None:
    with lent(2) as metal, cut_off(metal):
        cluster = ssh_cluster(metal, environment={"offline": True})
        make(cluster)
        proven(cluster)
        # Without the option it is said what could not be reached.
        other = ssh_cluster(metal, remote_dir=".flambe-other")
        with pytest.raises(RemoteError, match="installing the environment") as raised:
            make(other)
        assert raised.value.host.startswith("orchestrator")


def certified(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Return an authority that nobody knows, and a key and certificate that it signed."""
    folder.mkdir(exist_ok=True)
    authority, key, certificate = (folder / name for name in ("ca.pem", "key.pem", "cert.pem"))
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    signing = [*new, "-keyout", f"{folder}/ca.key", "-out", str(authority), "-subj", "/CN=test"]
    subprocess.run(signing, check=True, capture_output=True)
    leaf = [*new, "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}"]
    leaf += ["-CA", str(authority), "-CAkey", f"{folder}/ca.key"]
    kind = "IP" if name[0].isdigit() else "DNS"
    leaf += ["-addext", f"subjectAltName={kind}:{name}", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run(leaf, check=True, capture_output=True)
    return authority, key, certificate


@contextlib.contextmanager
def index(folder: Path, address: str, name: str = "") -> Iterator[tuple[str, Path]]:
    """Serve what is installed here as a package index, with a certificate that nobody knows."""
    links: dict[str, list[str]] = {}
    for package in closure.compute_closure(["flambe"]).versions:
        found = wheel.repack(metadata.distribution(package), folder)
        links.setdefault(canonicalize_name(package), []).append(
            f'<a href="/{found.path.relative_to(folder)}#sha256={found.sha256}">{found.path.name}</a>'
        )
    for package, lines in links.items():
        page = folder / "simple" / package / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("<!DOCTYPE html><html><body>" + "".join(lines) + "</body></html>")
    authority, key, certificate = certified(folder, name or address)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        (address, 0), functools.partial(Quiet, directory=str(folder))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://{name or address}:{server.server_address[1]}/simple", authority
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.long
def test_an_index_that_setup_commands_set(tmp_path: Path) -> None:
    with (
        lent(2) as metal,
        cut_off(metal),
        index(tmp_path / "index", metal.gateway) as (url, certificate),
    ):
        commands = [
            f"cat > ca.pem <<'END'\n{certificate.read_text()}END",
            f"pip config set global.index-url {url}",
            "pip config set global.cert $HOME/ca.pem",
        ]
        cluster = ssh_cluster(metal, setup_cmds=commands)
        make(cluster)
        proven(cluster)


@pytest.mark.long
def test_hosts_that_have_everything_download_nothing(tmp_path: Path) -> None:
    with lent(2) as metal:
        make(ssh_cluster(metal))
        with cut_off(metal):
            again = ssh_cluster(metal)
            assert "everything is in place" in make(again).notes
            proven(again)


@pytest.mark.long
def test_hosts_that_share_a_home() -> None:
    """Over a network: the environment is made once, and each host has a state of its own."""
    if shutil.which("sshfs") is None:
        pytest.skip("needs sshfs")
    with lent(3) as metal:
        first, *others = metal.hosts
        for host in others:
            share(metal, first, host, f"/home/{host.user}")
        commands = ["hostname >> who"]
        cluster = ssh_cluster(metal, setup_cmds=commands)
        told = make(cluster)
        assert any(note.startswith("environment:") for note in told.notes)
        assert not any("giving it" in note for note in told.notes)
        # sshfs does not let programs be run through its links; NFS would.
        proven(cluster, runs=False)
        names = first.run("cat", f"/home/{first.user}/who").stdout.split()
        assert sorted(names) == sorted(host.name for host in metal.hosts)
        assert "everything is in place" in make(ssh_cluster(metal, setup_cmds=commands)).notes
        for host in others:
            host.run("umount", "-l", f"/home/{host.user}")


@pytest.fixture(scope="module")
def bare() -> Path:
    """Return the tree of a Debian with python3 and little else, made once on a machine."""
    if shutil.which("debootstrap") is None:
        pytest.skip("needs debootstrap")
    if not (BARE / "usr" / "bin" / "python3").exists():
        part = BARE.with_suffix(".part")
        part.parent.mkdir(exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={INCLUDED}",
            "bookworm",
            str(part),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"debootstrap cannot reach a mirror: {done.stdout[-300:]}")
        part.rename(BARE)
    return BARE


@pytest.mark.long
def test_a_bare_debian(bare: Path) -> None:
    """python3 and an SSH server: no pip, no venv."""
    with lent(2, base=bare) as metal:
        for host in metal.hosts:
            # Who signs for the index where this runs may be unknown to a fresh Debian.
            shutil.copy("/etc/ssl/certs/ca-certificates.crt", host.root / "etc/ssl/certs")
        assert (
            metal.hosts[0]
            .run(
                "sh",
                "-c",
                "command -v pip || python3 -c 'import venv, ensurepip' 2>&1 | tail -1",
                check=False,
            )
            .stdout
            != ""
        )
        cluster = ssh_cluster(metal, setup_cmds=["pip --version"])
        told = make(cluster)
        assert sum("pip" in text and "python 3" in text for _, text in told.lines) == 2
        proven(cluster)


def test_connections_are_enough_to_ask(tmp_path: Path) -> None:
    with lent(1) as metal:
        (member,) = connected(ssh_cluster(metal))
        assert member.refresh("x").facts.python.startswith("3.")
