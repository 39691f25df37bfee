"""What can be done to a host happens for real, and is undone."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.metal import Host, Metal, MetalError
from tests.metal.client import Client, banner, wait
from tests.metal.node import Failed

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal")]

REBOOT = "import ctypes; ctypes.CDLL(None).reboot(0x1234567)"


def boot_id(host: Host) -> str:
    return host.run("cat", "/proc/sys/kernel/random/boot_id").stdout


def test_a_reboot(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[1]
    ssh.out(host, "touch /tmp/before ~/before; sudo touch /run/before")
    before = boot_id(host)
    assert before != Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    host.reboot()
    assert boot_id(host) != before
    assert ssh.out(host, "ls -A /tmp /run/before 2>&1; ls ~") == (
        "ls: cannot access '/run/before': No such file or directory\n/tmp:\nbefore"
    )
    assert ssh.out(host, "hostname") == host.name


def test_it_ends_itself_and_nobody_else(metal: Metal, ssh: Client) -> None:
    host, other = metal.hosts[1], metal.hosts[2]
    ssh(host, f"sudo python3 -c '{REBOOT}'")
    wait(lambda: not host.alive)
    with pytest.raises(MetalError, match="is not alive"):
        host.run("true")
    assert ssh.out(other, "hostname") == other.name
    host.reboot()
    assert ssh.out(host, "hostname") == host.name


def test_a_killed_host_is_dead(metal: Metal, ssh: Client) -> None:
    host = metal.add()
    with subprocess.Popen(
        ssh.argv(host, "sleep 99", "ServerAliveInterval=1", "ServerAliveCountMax=1"),
        stderr=subprocess.PIPE,
        text=True,
    ) as session:
        wait(lambda: host.handshakes() == 1)
        host.kill()
        assert not host.alive
        _, told = session.communicate(timeout=30)
    # Nobody said farewell.
    assert re.search("not responding|timed out", told)
    assert host.sshd_log()
    with pytest.raises(OSError, match=r"timed out|No route"):
        banner(host.address)
    with pytest.raises(MetalError, match="for good"):
        host.reboot()
    assert banner(metal.hosts[0].address) == b"SSH-"


def test_a_cut_cable(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[0]
    host.cut()
    try:
        with pytest.raises(OSError, match=r"timed out|No route"):
            banner(host.address)
        assert host.run("hostname").stdout == f"{host.name}\n"
    finally:
        host.mend()
    assert ssh.out(host, "hostname") == host.name


def test_a_dropped_port(metal: Metal) -> None:
    host = metal.hosts[0]
    host.drop()
    try:
        with pytest.raises(TimeoutError):
            banner(host.address)
        with pytest.raises(ConnectionRefusedError):
            banner(host.address, 2222)
    finally:
        host.undrop()
    assert banner(host.address) == b"SSH-"
    with pytest.raises(MetalError, match="iptables"):
        host.undrop()


def test_a_slow_way(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[0]
    address, port = host.slow(0.1)
    assert address == metal.gateway
    began = time.monotonic()
    assert banner(address, port) == b"SSH-"
    assert 0.1 <= time.monotonic() - began < 1
    before = time.monotonic()
    text = ssh.out(
        host, "head -c 3000000 /dev/zero | base64 -w0", f"HostName={address}", f"Port={port}"
    )
    assert len(text) == 4000000
    assert (
        time.monotonic() - before > 0.1 * 2 * 4
    )  # so many times, at least, one waits for the other
    with contextlib.suppress(ConnectionResetError):
        assert banner(*host.slow(0.1, port=2222)) == b""  # nothing answers there


def test_a_full_disk(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[0]
    host.fill("/home/ubuntu/new/small", 2)
    assert ssh.out(host, "stat -c %U ~/new ~/new/small") == "ubuntu\nubuntu"
    done = ssh(host, "head -c 3000000 /dev/zero > ~/new/small/file")
    assert "No space left" in done.stderr


@pytest.fixture
def patient(metal: Metal) -> Iterator[Host]:
    """Give the options of its sshd back."""
    yield metal.hosts[2]
    metal.hosts[2].restart_sshd()


def test_options_of_sshd(patient: Host, ssh: Client, tmp_path: Path) -> None:
    path = f"ControlPath={tmp_path / 's'}"

    def handshakes() -> int:
        """Count those of two sessions at once, through one connection if the host lets them."""
        before = patient.handshakes()
        with subprocess.Popen(
            ssh.argv(patient, "read x", "ControlMaster=yes", path), stdin=subprocess.PIPE
        ) as first:
            wait((tmp_path / "s").exists)
            wait(lambda: any("read x" in line for line in patient.processes()))
            assert ssh.out(patient, "echo second", path) == "second"
            assert first.stdin is not None
            first.stdin.close()
            first.wait(20)
        return patient.handshakes() - before

    assert handshakes() == 1
    patient.restart_sshd("-oMaxSessions=1")
    assert any("MaxSessions=1" in line for line in patient.processes())
    assert handshakes() == 2  # the second was refused, and made a connection of its own
    with pytest.raises(Failed, match="Bad configuration option"):
        patient.restart_sshd("-oNoSuch=1")


def test_a_restart_ends_sessions(patient: Host, ssh: Client) -> None:
    before = patient.handshakes()
    with subprocess.Popen(ssh.argv(patient, "sleep 99")) as session:
        wait(lambda: patient.handshakes() > before)
        patient.restart_sshd()
        assert session.wait(20) == 255
    assert ssh.out(patient, "hostname") == patient.name


def test_another_host_key(patient: Host, ssh: Client) -> None:
    old = patient.host_key
    ssh.out(patient, "true")
    patient.new_host_key()
    assert patient.host_key != old
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in ssh(patient, "true").stderr
    (ssh.folder / f"known-{patient.name}").unlink()
    ssh.out(patient, "true")


def test_login_is_forbidden_for_a_while(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[2]
    host.forbid_login()
    try:
        assert "Permission denied" in ssh(host, "true").stderr
    finally:
        host.allow_login()
    ssh.out(host, "true")


def test_a_second_user(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[2]
    key = host.add_user("mallory")
    assert ssh(host, "id -un; pwd", user="mallory", key=key).stdout == "mallory\n/home/mallory\n"
    assert ssh(host, "sudo -n id", user="mallory", key=key).returncode == 1
    assert ssh(host, "true", key=key).returncode == 255
    assert ssh(host, "true", user="mallory").returncode == 255
