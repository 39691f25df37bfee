"""Networks as labs have them: little is open between hosts, and not every host can be reached."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.place import Place
from tests.metal import Metal
from tests.metal.conftest import lent

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal-networks")]

EXAMPLES = Path(__file__).parents[3] / "examples"
HELLO = EXAMPLES / "hello-cluster.yaml"


@contextlib.contextmanager
def ruled(metal: Metal, numbers: list[int], *rules: list[str]) -> Iterator[None]:
    """Let some hosts drop what rules of iptables say."""
    hosts = [metal.hosts[number] for number in numbers]
    for host in hosts:
        for rule in rules:
            host.in_network("iptables", "-w", "-I", "INPUT", *rule, "-j", "DROP")
    yield  # the rules go with the hosts


def reaches(metal: Metal, port: int) -> bool:
    """Whether the orchestrator reaches a port of a factory; one that is closed answers too."""
    script = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{metal.hosts[1].address}/{port}'"
    return metal.hosts[0].run("sh", "-c", script, check=False).returncode != 124


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[Place]:
    """Give a folder in which the example can be run on a cluster."""
    place = Place(tmp_path, "")
    place.install(EXAMPLES / "hello-cluster")
    yield place
    shutil.rmtree(place.folder / "home", ignore_errors=True)


def proven(place: Place, metal: Metal) -> None:
    """Everything that one does with a cluster works on it."""
    run = place.flambe(HELLO, "--cluster", place.cluster)
    assert run.returncode == 0, run.stderr
    orchestrator, *factories = (host.name for host in metal.hosts)
    told = [f"orchestrator: hello from {orchestrator}"]
    told += [f"factory_{n}: hello from {name}" for n, name in enumerate(factories, 1)]
    for shown in (run.stdout, place.flambe("logs", "lab").stdout):
        assert [line for line in shown.splitlines() if " from " in line] == told
    status = place.flambe("status", "lab")
    assert (status.returncode, status.stdout.count("ready")) == (0, 3)
    done = place.flambe(place.job(steps=1), "--cluster", place.cluster)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("host content") == 3
    fetched = place.flambe("fetch", "lab", "fetched")
    assert fetched.returncode == 0, fetched.stderr
    assert (place.folder / "fetched" / "result.txt").read_text() == "the result"
    everywhere = place.flambe("exec", "lab", "--all", "--", "hostname")
    assert all(host.name in everywhere.stdout for host in metal.hosts)
    down = place.flambe("down", "lab")
    assert down.returncode == 0, down.stderr


@pytest.mark.long
def test_a_lab_where_only_ssh_is_open_between_hosts(hello: Place, installed: Path | None) -> None:
    with lent(3, layer=installed) as metal:
        hello.cluster.write_text(metal.cluster_yaml("lab"))
        inside = ["-s", metal.claim.network]
        tcp = [*inside, "-p", "tcp", "--syn", "!", "--dport", "22"]
        assert reaches(metal, 2222)
        with ruled(metal, [0, 1, 2], tcp, [*inside, "-p", "udp"], [*inside, "-p", "icmp"]):
            assert reaches(metal, 22)
            assert not reaches(metal, 2222)
            proven(hello, metal)


@pytest.mark.long
def test_factories_that_are_reached_by_a_jump(hello: Place, installed: Path | None) -> None:
    """``ProxyJump`` in the user's configuration of ssh, here one of the test's own."""
    with lent(3, layer=installed) as metal:
        first, *factories = (host.address for host in metal.hosts)
        known = hello.folder / "known"
        config = hello.folder / "ssh-config"
        config.write_text(
            f"Host {' '.join(factories)}\n  ProxyJump {metal.user}@{first}\n"
            f"Host *\n  IdentityFile {metal.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n"
        )
        program = hello.folder / "bin" / "ssh"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        program.chmod(0o755)
        hello.env["PATH"] = f"{program.parent}:{hello.env['PATH']}"
        hello.cluster.write_text(
            f"!SSHCluster {{name: lab, orchestrator_ip: {first}, factories_ips: {factories}, "
            f"username: {metal.user}}}\n"
        )
        with ruled(metal, [1, 2], ["-s", metal.gateway]):
            unknown = hello.flambe(hello.cluster)
            assert unknown.returncode == 1
            assert unknown.stderr.count("(ProxyJump) is not known to you yet") == 2
            assert f"ssh {metal.user}@{factories[0]}" in unknown.stderr
            # What the user was told to do.
            known.write_text(f"{first} {metal.hosts[0].host_key}\n")
            proven(hello, metal)
