"""Containers, by a real Docker on a real host; and what is told where there is none."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import LocalCluster, SSHCluster
from flambe.cluster.services.docker import Container
from flambe.errors import CommandError, ConfigError, DeadlineError, RemoteError
from flambe.testing import RecordingObserver
from tests.cluster.conftest import connected, ssh_cluster
from tests.metal import Host, Metal
from tests.metal.conftest import lent
from tests.metal.machine import CLEAN, command_line, pids, until

pytestmark = pytest.mark.integration

# A host has neither what keeps the processes of containers together, nor a disk that takes the
# overlays of Docker. There is an image, and no registry.
START = """
mkdir -p /var/lib/docker /run/image/bin
mount -t tmpfs docker /var/lib/docker
if [ -e "$2" ]; then
    mount -t cgroup2 cgroup /sys/fs/cgroup
else
    mount -t tmpfs cgroup /sys/fs/cgroup
    awk '$2 > 0 && $4 == 1 {print $1}' /proc/cgroups | while read -r name; do
        mkdir "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name"
    done
fi
dockerd --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs \
    --cgroup-parent="/$1" -H unix:///run/docker.sock > /var/log/dockerd.log 2>&1 &
for _ in $(seq 300); do
    ! docker version > /dev/null 2>&1 || break
    sleep 0.1
done
cp "$(command -v busybox)" /run/image/bin/busybox
for name in cat echo env httpd sh sleep; do ln -s busybox "/run/image/bin/$name"; done
tar -C /run/image -c . | docker import - box > /dev/null || { cat /var/log/dockerd.log; exit 1; }
"""
# Nothing that is installed on a host starts by itself there.
PURGE = """
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
DEBIAN_FRONTEND=noninteractive apt-get purge -y docker.io
! command -v docker
"""
SLEEP = ["sleep", "1000"]
QUICK = ["--stop-signal=KILL"]  # the first process of a container hears no other


def real(test: Any) -> Any:
    """Mark what needs a real host."""
    return pytest.mark.root(pytest.mark.xdist_group("metal-docker")(test))


def missing() -> list[str]:
    """Return the packages that this machine lacks."""
    found = {"docker.io": shutil.which("dockerd", path=CLEAN["PATH"])}
    busybox = shutil.which("busybox", path=CLEAN["PATH"])
    static = busybox and subprocess.run(["ldd", busybox], capture_output=True, check=False)
    found["busybox-static"] = busybox if static and static.returncode else None
    return [package for package, path in found.items() if path is None]


def start_docker(host: Host) -> None:
    unified = "/sys/fs/cgroup/cgroup.controllers"
    there = unified if os.path.exists(unified) else "/nothing"
    done = host.run("bash", "-euc", START, "bash", host.name, there, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def left_behind(name: str) -> list[Path]:
    """Return what the kernel keeps of the containers of a host, the innermost first."""
    top = Path("/sys/fs/cgroup")
    folders = [found for depth in (name, f"*/{name}") for found in top.glob(depth)]
    return [Path(path) for f in folders for path, *_ in os.walk(f, topdown=False)]


def forgotten(name: str) -> bool:
    for folder in left_behind(name):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return not left_behind(name)


def mounted() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


@pytest.fixture(scope="module")
def metal() -> Iterator[Metal]:
    """Lend two hosts: one with Docker, and one that never had it."""
    if packages := missing():
        pytest.skip(f"needs {', '.join(packages)}")
    mounts = mounted()
    with lent(2) as hosts:
        names = [host.name for host in hosts.hosts]
        start_docker(hosts.hosts[0])
        hosts.hosts[0].run("usermod", "-aG", "docker", hosts.user)
        hosts.hosts[1].run("sh", "-euc", PURGE)
        yield hosts
    for name in names:
        until(functools.partial(forgotten, name), f"the end of {name}", 20)
        assert not [pid for pid in pids() if f"--cgroup-parent=/{name}" in command_line(pid)]
    assert not [line for line in mounted() - mounts if "docker" in line]


@pytest.fixture
def cluster(metal: Metal) -> Iterator[SSHCluster]:
    made = ssh_cluster(metal)
    connected(made)
    yield made
    made.docker.remove_all()


def by_root(metal: Metal, *words: str) -> str:
    return metal.hosts[0].run("docker", *words).stdout


@pytest.fixture
def theirs(metal: Metal) -> Iterator[list[str]]:
    """Run what is not ours: of nobody, of another cluster, of another user's cluster."""
    labels = ["other=x", "flambe.cluster=other", "flambe.cluster=metal"]
    run = ("run", "--detach", "box", *SLEEP)
    made = [by_root(metal, run[0], f"--label={label}", *run[1:]).strip() for label in labels]
    yield made
    running = by_root(metal, "ps", "--quiet", "--no-trunc").split()
    by_root(metal, "rm", "--force", *made)
    assert set(made) <= set(running)


@real
class TestContainers:
    def test_a_container_beside_those_of_others(
        self, cluster: SSHCluster, theirs: list[str]
    ) -> None:
        docker = cluster.docker
        script = "echo one; echo two >&2; echo three; sleep 1000"
        (made,) = docker.run("box", ["sh", "-c", script], name="mine", options=QUICK)
        assert (made.host, made.name, made.image) == ("orchestrator", "mine", "box")
        assert made.status == "running"
        (other,) = docker.run("box", ["sh", "-c", "exit 3"])
        until(lambda: docker.list()[0].status == "exited (3)", "the end", 10)
        assert {found.id for found in docker.list()} == {made.id, other.id}
        assert docker.list(name="mine") == [made]
        assert docker.list(name="min") == []
        until(lambda: len(docker.logs(made).split()) == 3, "its words", 10)
        assert sorted(docker.logs(made).split()) == ["one", "three", "two"]
        assert docker.logs(made, tail=1) in ("two\n", "three\n")  # two streams, in no order
        assert docker.stop(name="mine") == [made]
        assert [found.id for found in docker.list()] == [other.id]
        assert [found.id for found in docker.remove_all()] == [other.id]
        assert docker.list() == []
        assert docker.remove_all() == []

    def test_the_container_of_others_is_refused(
        self, cluster: SSHCluster, theirs: list[str]
    ) -> None:
        docker = cluster.docker
        (made,) = docker.run("box", SLEEP, options=QUICK)
        for identifier in theirs:
            foreign = Container("orchestrator", identifier, "theirs", "box", "running")
            with pytest.raises(RemoteError, match="theirs .* was not started by cluster metal"):
                docker.stop([made, foreign])
        assert docker.list() == [made]
        assert docker.stop([made]) == [made]
        assert docker.stop([made]) == []  # gone already
        with pytest.raises(CommandError, match="No such container"):
            docker.logs(made)
        with pytest.raises(RemoteError, match="not a host of cluster metal"):
            docker.stop([Container("factory_9", made.id, "", "", "")])

    def test_a_name_is_had_once(self, cluster: SSHCluster) -> None:
        (made,) = cluster.docker.run("box", SLEEP, name="once", options=QUICK)
        with pytest.raises(CommandError, match="already in use"):
            cluster.docker.run("box", SLEEP, name="once")
        assert cluster.docker.list() == [made]

    def test_one_that_is_waited_for_gives_its_output(self, cluster: SSHCluster) -> None:
        docker = cluster.docker
        (done,) = docker.run("box", ["sh", "-c", "echo a; echo b >&2; echo c"], detach=False)
        assert (done.output, done.status) == ("a\nc\n", "removed")
        with pytest.raises(CommandError) as raised:
            docker.run("box", ["sh", "-c", "echo out; echo why >&2; exit 7"], detach=False)
        error = raised.value
        assert (error.code, error.stdout, error.stderr) == (7, "out\n", "why\n")
        assert "docker run box sh -c" in str(error)
        with pytest.raises(CommandError, match="no-such-program"):
            docker.run("box", ["no-such-program"], detach=False)
        with pytest.raises(CommandError, match="no-such-program"):
            docker.run("box", ["no-such-program"])
        with pytest.raises(DeadlineError):
            docker.run("box", SLEEP, detach=False, deadline=2)
        assert docker.list() == []

    def test_one_that_is_interrupted_is_removed(self, metal: Metal, cluster: SSHCluster) -> None:
        def interrupt() -> None:
            until(lambda: by_root(metal, "ps", "--quiet"), "the container", 20)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            cluster.docker.run("box", SLEEP, detach=False)
        thread.join()
        assert cluster.docker.list() == []

    def test_ports_and_folders(self, metal: Metal, cluster: SSHCluster) -> None:
        cluster.orchestrator.put("hello", "my site/index.html")
        cluster.docker.run(
            "box",
            ["httpd", "-f", "-p", "80", "-h", "/site"],
            ports={8080: 80},
            volumes={"my site": "/site:ro"},
            options=QUICK,
        )
        url = f"http://{metal.hosts[0].address}:8080/index.html"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answer() -> bytes:
            with contextlib.suppress(OSError), opener.open(url, timeout=5) as said:
                return bytes(said.read())
            return b""

        assert until(answer, "an answer", 10) == b"hello"

    def test_what_cannot_be_had_is_told(self, cluster: SSHCluster) -> None:
        with pytest.raises(CommandError, match="docker pull localhost:1/none"):
            cluster.docker.run("localhost:1/none")
        with pytest.raises(CommandError, match="= install nvidia-container-toolkit"):
            cluster.docker.run("box", SLEEP, gpus=True)
        with pytest.raises(CommandError, match="= install nvidia-container-toolkit"):
            cluster.docker.run("box", SLEEP, gpus=True, detach=False)
        with pytest.raises(CommandError, match="unknown flag"):
            cluster.docker.run("box", SLEEP, options=["--no-such-option"])
        assert cluster.docker.list() == []

    def test_one_that_removes_itself(self, cluster: SSHCluster) -> None:
        (made,) = cluster.docker.run("box", ["echo"], options=["--rm"])
        until(lambda: not cluster.docker.list(), "its end", 10)
        assert cluster.docker.stop([made]) == []

    def test_if_it_fails_on_one_host_it_is_on_none(self, cluster: SSHCluster) -> None:
        hosts = [cluster.orchestrator, *cluster.factories]
        with pytest.raises(RemoteError, match="no program docker"):
            cluster.docker.run("box", SLEEP, hosts=hosts, options=QUICK)
        assert cluster.docker.list() == []


@contextlib.contextmanager
def overheard() -> Iterator[set[str]]:
    """Note the command lines of all processes of this machine, its hosts included."""
    heard: set[str] = set()
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            heard.update(" ".join(command_line(pid)) for pid in pids())
            time.sleep(0.005)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()


@real
def test_no_command_line_and_no_file_shows_the_environment(
    metal: Metal, cluster: SSHCluster
) -> None:
    host, secret = metal.hosts[0], f"s3cret-{os.urandom(8).hex()}"
    env = {"TOKEN": secret, "WORDS": " a 'b' \"c\" $d #e=f é ", "EMPTY": ""}
    # Each call of docker there, however short, is written down.
    wrapper = '#!/bin/sh\nprintf "%s " "$@" >> /tmp/calls\nexec /usr/bin/docker "$@"\n'
    cluster.orchestrator.put(wrapper, "docker", mode=0o755)
    home = f"/home/{metal.user}"
    host.run("mv", f"{home}/docker", "/usr/local/bin/docker")
    try:
        with overheard() as heard:
            (done,) = cluster.docker.run("box", ["env"], env=env, detach=False)
            (made,) = cluster.docker.run("box", SLEEP, env=env, options=QUICK)
    finally:
        host.run("rm", "/usr/local/bin/docker")
    said = done.output.splitlines()
    assert {f"{key}={value}" for key, value in env.items()} <= set(said)
    assert "create" in host.run("cat", "/tmp/calls").stdout
    assert secret not in host.run("cat", "/tmp/calls").stdout
    assert any("docker create" in line for line in heard)
    assert not [line for line in heard if secret in line]
    assert not [line for line in host.processes() if secret in line]
    found = host.run("grep", "-rlsF", secret, home, "/tmp", "/run", "/var/tmp", check=False).stdout
    # What Docker itself needs to start it is root's.
    assert all(line.startswith("/run/docker/") for line in found.splitlines())
    assert made.status == "running"


@real
def test_who_may_not_use_docker_is_told(metal: Metal) -> None:
    key = metal.hosts[0].add_user("guest")
    guest = ssh_cluster(metal, username="guest", key=str(key))
    machines = guest.find_machines()[:1]
    guest.find_machines = lambda: machines  # type: ignore[method-assign]
    connected(guest)
    with pytest.raises(RemoteError, match="may not use Docker") as raised:
        guest.docker.run("box")
    assert "sudo usermod -aG docker guest" in str(raised.value)
    assert raised.value.host == guest.orchestrator.name
    assert guest.docker.list() == []  # what may not be used runs nothing of ours
    assert guest.docker.remove_all() == []
    with pytest.raises(RemoteError, match="may not use Docker"):
        guest.docker.list([guest.orchestrator])
    with pytest.raises(RemoteError, match="guest may not use sudo without a password"):
        guest.docker.install()


@real
def test_a_user_is_let_in(metal: Metal, cluster: SSHCluster) -> None:
    host = metal.hosts[0]
    host.run("gpasswd", "--delete", metal.user, "docker")
    cluster.orchestrator.connection.close()
    with pytest.raises(RemoteError, match="may not use Docker"):
        cluster.docker.run("box", ["echo"])
    before = host.handshakes()
    cluster.docker.install([cluster.orchestrator])
    cluster.docker.run("box", ["echo"], detach=False)
    assert host.handshakes() == before + 1
    cluster.docker.install([cluster.orchestrator])
    assert host.handshakes() == before + 1


@real
def test_a_daemon_that_does_not_answer(metal: Metal, cluster: SSHCluster) -> None:
    host = metal.hosts[0]
    host.run("mv", "/run/docker.sock", "/run/away.sock")
    try:
        with pytest.raises(RemoteError, match="= sudo systemctl start docker"):
            cluster.docker.run("box")
        with pytest.raises(RemoteError, match="= sudo systemctl start docker"):
            cluster.docker.install([cluster.orchestrator])
        assert cluster.docker.list() == []
    finally:
        host.run("mv", "/run/away.sock", "/run/docker.sock")


@real
def test_docker_is_installed(metal: Metal) -> None:
    host = metal.add()
    host.run("sh", "-euc", PURGE)
    update = host.run("apt-get", "update", "--error-on=any", check=False)
    if update.returncode:
        host.kill()
        pytest.skip("needs the packages of Debian")
    cluster, told = ssh_cluster(metal), RecordingObserver()
    connected(cluster)
    cluster.observer = told
    added = [cluster.factories[-1]]
    with pytest.raises(RemoteError, match="= sudo systemctl start docker"):
        cluster.docker.install(added)  # nothing starts by itself there
    assert told.notes == [f"{added[0].name}: installing Docker"]
    assert any("Setting up docker.io" in line for _, line in told.lines)
    start_docker(host)
    cluster.docker.install(added)
    assert len(told.notes) == 1
    (done,) = cluster.docker.run("box", ["echo", "here"], hosts=added, detach=False)
    assert (done.host, done.output) == ("factory_2", "here\n")
    host.kill()
    until(lambda: forgotten(host.name), f"the end of {host.name}", 20)


# -- where there is no Docker, and no root is needed ----------------------------------------------


@pytest.fixture
def bare(
    local: Callable[..., LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LocalCluster:
    """Give a cluster whose hosts have a few programs, and neither Docker nor apt-get."""
    for name in ("cat", "env", "id", "mkdir", "printf", "python3", "sh", "ssh", "ssh-keygen"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = local(1)
    connected(cluster)
    return cluster


def test_docker_is_missing(bare: LocalCluster) -> None:
    if bare.orchestrator.run(["sh", "-c", "command -v docker"], check=False).code == 0:
        pytest.skip("this Python lies beside a docker")
    acts: list[Callable[[], Any]] = [
        lambda: bare.docker.run("box"),
        lambda: bare.docker.list([bare.orchestrator]),
        lambda: bare.docker.logs(Container("orchestrator", "0", "", "", "")),
    ]
    for act in acts:
        with pytest.raises(RemoteError, match="no program docker") as raised:
            act()
        assert raised.value.host == bare.orchestrator.name
        assert "cluster.docker.install()" in str(raised.value)
    assert bare.docker.list() == []
    assert bare.docker.remove_all() == []
    with pytest.raises(RemoteError, match="there is no apt-get"):
        bare.docker.install([bare.orchestrator])


@pytest.mark.parametrize("value", ["one\ntwo", "one\r", "\0"])
def test_a_variable_has_one_line(bare: LocalCluster, value: str) -> None:
    with pytest.raises(ConfigError, match="env KEY: the value has more than one line") as raised:
        bare.docker.run("box", env={"KEY": value})
    assert "one" not in str(raised.value).replace("one line", "")


@pytest.mark.parametrize("name", ["", "a b", "#a", "a=b", "a\nb"])
def test_a_variable_has_a_name(bare: LocalCluster, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name of an environment variable"):
        bare.docker.run("box", env={name: "x"})
