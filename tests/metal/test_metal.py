"""The hosts that other tests stand on do what is said of them, and leave nothing behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metal import Metal, MetalError
from tests.metal.client import Client, banner, wait
from tests.metal.conftest import lent
from tests.metal.machine import FORWARD, ROOM, Claim, claims, command_line, links, pids, sh
from tests.metal.node import Failed, namespace

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal")]

CHECKOUT = Path(__file__).resolve().parents[2]


def traces(number: int) -> list[str]:
    """Return what there is of a Metal on this machine."""
    name, folder = Claim(number).bridge, str(Claim(number).folder)
    found = [link for link in links() if link.partition("-")[0] == name]
    for table in ("nat", "filter"):
        rules = sh("iptables-save", "-t", table).splitlines()
        found += [rule for rule in rules if f"{name} " in rule or f"10.213.{number}." in rule]
    # A client that was killed leaves a connection of ssh that waits to be used again: it is no host's.
    lines = [
        words for pid in pids() if (words := command_line(pid)) and Path(words[0]).name != "ssh"
    ]
    found += [line for line in map(" ".join, lines) if f"{folder}/" in line]
    mounts = Path("/proc/self/mounts").read_text("utf-8")
    return found + [folder] * (Path(folder).exists() or f"{folder}/" in mounts)


def gone(number: int) -> bool:
    """Tell whether nothing is left of a Metal, or somebody else had its number while we looked."""
    before, left, after = others(), traces(number), others()
    assert not left or any(other.number == number for other in before + after), left
    return True


def others() -> list[Claim]:
    return [claim for claim in claims() if not claim.orphan]


def picture() -> tuple[list[str], str, str, int]:
    """Return what there is on this machine: links, mounts, forwarding, pid namespaces."""
    mounts = Path("/proc/self/mounts").read_text("utf-8")
    inside = {namespace(pid) for pid in pids()} - {""}
    return (sorted(links()), mounts, FORWARD.read_text("ascii"), len(inside))


# -- coming and going -----------------------------------------------------------------------------


def test_nothing_is_left() -> None:
    alone, before = not others(), picture()
    with lent(2) as metal:
        number = metal.claim.number
        first, second = metal.hosts
        address = first.slow(0.1)
        assert banner(*address) == b"SSH-"
        first.fill("/srv/small", 1)
        first.run("sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &")
        second.kill()
        assert traces(number)
    assert gone(number)
    with pytest.raises(OSError, match="refused|unreachable|timed out"):
        banner(*address)
    if alone and not others():
        assert picture() == before
        assert not ROOM.exists()


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    metal = Metal(2, base=tmp_path)
    with pytest.raises(MetalError, match="metal[0-9]+-1[12] is not alive\n.*mount"):
        metal.up()
    with pytest.raises(MetalError, match="must be a folder"):
        Metal(2, base=tmp_path / "nowhere").up()
    with pytest.raises(MetalError, match="not up"):
        assert metal.key
    with pytest.raises(MetalError, match="from 1 to"):
        Metal(0).up()
    assert all(claim.read().get("pid") != os.getpid() for claim in claims())


FORGETFUL = """
import time
from tests.metal import Metal
metal = Metal(1)
metal.up()
print(metal.claim.number, flush=True)
"""


def forgetful(then: str) -> subprocess.Popen[str]:
    """Start a process that makes a host, and says its number."""
    return subprocess.Popen(
        [sys.executable, "-c", FORGETFUL + then], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )


def test_python_ends_without_down() -> None:
    done = forgetful("")
    out, _ = done.communicate(timeout=60)
    assert gone(int(out))


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    with forgetful("time.sleep(600)") as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        assert traces(number)
        process.kill()
    with lent(1) as metal:
        if metal.claim.number == number:  # it is free again
            assert len(metal.claim.hosts()) == 1
        else:
            assert gone(number)
    assert gone(number)


def test_two_at_once(metal: Metal) -> None:
    with lent(1) as other:
        assert other.gateway != metal.gateway
        assert banner(other.hosts[0].address) == b"SSH-"
    assert banner(metal.hosts[0].address) == b"SSH-"


def test_the_command() -> None:
    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.metal", *words],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done

    made = run("up", "2")
    addresses = re.findall(r'"(10\.213\.[0-9.]+)"', made.stdout)
    name = f"metal{addresses[0].split('.')[2]}"
    try:
        assert made.stdout.startswith('!SSHCluster\nname: "metal"\norchestrator_ip: "10.213.')
        assert f"{name}-12\t{addresses[1]}\tkept" in run("list").stdout
        assert run("exec", f"{name}-12", "--", "hostname").stdout == f"{name}-12\n"
        assert run("exec", "--user", "ubuntu", f"{name}-11", "pwd").stdout == "/home/ubuntu\n"
        assert run("exec", f"{name}-11", "--", "sh", "-c", "exit 7", code=7)
        assert "no host nobody" in run("exec", "nobody", "--", "true", code=1).stderr
        assert "which command" in run("exec", f"{name}-11", code=1).stderr
        assert banner(addresses[0]) == b"SSH-"
    finally:
        run("down", name)
    assert gone(int(name[5:]))
    assert "none" in run("down", name).stderr
    run("up", code=2)


def test_the_file_of_the_cluster(metal: Metal) -> None:
    one, two, three = [host.address for host in metal.hosts]
    assert metal.cluster_yaml(name="lab", use_public=False, setup_cmds=["true"]) == (
        f'!SSHCluster\nname: "lab"\norchestrator_ip: "{one}"\nfactories_ips: ["{two}", "{three}"]\n'
        f'key: "{metal.key}"\nusername: "ubuntu"\nuse_public: false\nsetup_cmds: ["true"]\n'
    )


# -- what a host is -------------------------------------------------------------------------------


def test_a_host_is_reached_with_its_key(metal: Metal, ssh: Client) -> None:
    assert metal.key.stat().st_mode & 0o777 == 0o600
    for host in metal.hosts:
        before = host.handshakes()
        assert ssh.out(host, "id -un; hostname; pwd; sudo id -un") == (
            f"ubuntu\n{host.name}\n/home/ubuntu\nroot"
        )
        assert host.handshakes() == before + 1
        assert host.alive
    assert ssh(metal.hosts[0], "true", user="root").returncode == 255


def test_hosts_are_apart(metal: Metal, ssh: Client) -> None:
    one, two, _ = metal.hosts
    ssh.out(one, "touch /tmp/mine ~/mine; setsid sleep 1234 > /dev/null 2>&1 &")
    assert ssh.out(two, "ls /tmp ~") == "/home/ubuntu:\n\n/tmp:"
    assert "sleep 1234" in one.processes()
    assert "sleep 1234" not in two.processes()
    assert not any("sleep 1234" in line for line in ssh.out(two, "ps ax").splitlines())
    assert (one.root / "tmp/mine").exists()
    assert not Path("/home/ubuntu/mine").exists()
    assert not (Path("/tmp/mine").exists())
    ids = [host.run("cat", "/etc/machine-id").stdout for host in metal.hosts]
    assert len({*ids, *(host.host_key for host in metal.hosts)}) == 6


def test_hosts_reach_each_other_and_the_world(metal: Metal, ssh: Client) -> None:
    one, two, _ = metal.hosts
    look = f"exec 3<> /dev/tcp/{two.address}/22; head -c 4 <&3"
    assert ssh.out(one, f"bash -c '{look}'") == "SSH-"
    try:
        socket.create_connection(("pypi.org", 443), 10).close()
    except OSError:
        pytest.skip("this machine reaches no package index itself")
    connect = "import socket; socket.create_connection(('pypi.org', 443), 10)"
    ssh.out(one, f'python3 -c "{connect}"')


def test_this_machine_is_hidden(metal: Metal, ssh: Client) -> None:
    host = metal.hosts[0]
    assert (
        ssh.out(host, f"test ! -e {CHECKOUT}; echo $?; sudo ls -A /root; ls -A /home")
        == "0\nubuntu"
    )
    assert ssh.out(host, "ls -A /opt /srv /var/tmp | grep -v : ") == ""
    assert ssh.out(host, "python3 -m pip config list") == ""
    inherited = (host.root / "proc/1/environ").read_text("utf-8")
    assert inherited.rstrip("\0").startswith("PATH=")
    assert not re.search("PIP|SSL|CERT|PYTHON|OLDPWD", ssh.out(host, "env") + inherited)
    for program in ("python3", "rsync", "sudo"):
        assert ssh.out(host, f"command -v {program}") == f"/usr/bin/{program}"


def test_programs_are_run_without_ssh(metal: Metal) -> None:
    host = metal.hosts[0]
    assert host.run("cat", input="text").stdout == "text"
    assert host.run("id", "-un").stdout == "root\n"
    assert host.run("sh", "-c", "id -un; pwd", user="ubuntu").stdout == "ubuntu\n/home/ubuntu\n"
    assert host.run("false", check=False).returncode == 1
    with pytest.raises(Failed, match="No such file"):
        host.run("ls", "/nowhere")
    with pytest.raises(subprocess.TimeoutExpired):
        host.run("sh", "-c", "sleep 4321; true", timeout=0.3)
    wait(lambda: not any("4321" in line for line in host.processes()))


def test_another_base_and_another_user(metal: Metal, ssh: Client, tmp_path: Path) -> None:
    base, upper, work = (tmp_path / name for name in ("base", "upper", "work"))
    for folder in (base, upper, work):
        folder.mkdir()
    (upper / "mark").write_text("of the base\n", encoding="utf-8")
    (upper / "opt").mkdir()
    (upper / "opt" / "kept").write_text("", encoding="utf-8")
    layers = f"lowerdir=/,upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "base", base], check=True, timeout=60)
    try:
        host = metal.add(user="alice", base=base)
        assert host in metal.hosts
        assert ssh.out(host, "cat /mark; sudo hostname") == f"of the base\n{host.name}"
        assert (host.root / "opt" / "kept").exists()  # a tree is taken as it is
        host.kill()
    finally:
        subprocess.run(["umount", base], check=True, timeout=60)
