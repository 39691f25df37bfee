"""SSHCluster on real hosts: made ready, trusted, set up, and what may go wrong."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.cluster import SSHCluster
from flambe.cluster.provisioning import cluster_keys, lock
from flambe.errors import (
    CommandError,
    FanOutError,
    HostKeyError,
    RemoteError,
    RunError,
    UnreachableError,
)
from flambe.remote.agent.protocol import (
    LockHolder,
    LockRequest,
    RunState,
    StartRequest,
    StopRequest,
)
from flambe.testing import RecordingObserver
from tests.cluster.conftest import connected, ssh_cluster
from tests.experiment.lab import command, environment, until
from tests.metal import Metal

EQUIPPED = True  # its hosts have flambe's environments from the start

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.faults,
    pytest.mark.xdist_group("metal-ssh"),
]


def make(cluster: SSHCluster, **options: Any) -> RecordingObserver:
    """Make a cluster ready; return what was told."""
    told = RecordingObserver()
    cluster.run(observer=told, **options)
    return told


@contextlib.contextmanager
def restored(metal: Metal) -> Iterator[None]:
    """Give hosts their ordinary sshd back."""
    try:
        yield
    finally:
        for host in metal.hosts:
            host.restart_sshd()


def test_a_cluster_is_made_ready_once(metal: Metal) -> None:
    cluster = ssh_cluster(metal, setup_cmds=["echo $((6 * 7)) > answer", "cat answer"])
    first = make(cluster)
    assert any("keys: a new pair" in note for note in first.notes)
    assert sum("seen for the first time" in note and "SHA256:" in note for note in first.notes) == 3
    for name in ("orchestrator", "factory_1", "factory_2"):
        assert (name, "42") in first.lines
    log = cluster.local.setup_log.read_text()
    assert log.count("$ echo $((6 * 7)) > answer") == 3
    before = [host.handshakes() for host in metal.hosts]
    again = make(ssh_cluster(metal, setup_cmds=cluster.setup_cmds))
    assert again.notes == ["everything is in place"]
    assert again.lines == []
    # The connection that is there is used.
    assert [host.handshakes() for host in metal.hosts] == before
    for member in cluster.hosts:
        assert member.report.environment is not None
        assert member.report.environment.distributions["ray"]
        assert member.facts.user == "ubuntu"


def test_hosts_reach_one_another_by_a_plain_ssh(metal: Metal) -> None:
    make(ssh_cluster(metal))
    for host in metal.hosts:
        for other in metal.hosts:
            done = host.run("su", "-", host.user, "-c", f"ssh {other.address} hostname", timeout=30)
            assert done.stdout.strip() == other.name
            assert done.stderr == ""
    # The user's own key went nowhere.
    own = metal.key.read_text()
    for host in metal.hosts:
        assert own not in host.run("cat", f"/home/{host.user}/.ssh/flambe-metal").stdout


def test_hosts_that_disagree_get_a_new_pair(metal: Metal) -> None:
    make(ssh_cluster(metal))
    path = f"/home/{metal.hosts[1].user}/.ssh/flambe-metal"
    before = metal.hosts[0].run("cat", f"{path}.pub").stdout
    metal.hosts[1].run("rm", path)
    told = make(ssh_cluster(metal))
    assert any("keys: a new pair" in note for note in told.notes)
    publics = {host.run("cat", f"{path}.pub").stdout for host in metal.hosts}
    assert len(publics) == 1
    assert publics != {before}
    authorized = (
        metal.hosts[2].run("cat", f"/home/{metal.hosts[2].user}/.ssh/authorized_keys").stdout
    )
    assert authorized.count("flambe:metal") == 1
    members = connected(ssh_cluster(metal))
    for member in members:
        member.refresh("metal")
    assert cluster_keys.agree("metal", members)
    cluster_keys.remove("metal", members)
    for host in metal.hosts:
        assert host.run("ls", f"/home/{host.user}/.ssh").stdout.split() == [
            "authorized_keys",
            "config",
        ]


def test_setup_commands_run_once_for_each_boot_and_list(metal: Metal) -> None:
    def runs() -> list[int]:
        return [
            len(host.run("cat", f"/home/{host.user}/count").stdout.split()) for host in metal.hosts
        ]

    commands = ["echo x >> count"]
    for host in metal.hosts:
        host.run("rm", "-f", f"/home/{host.user}/count")
    make(ssh_cluster(metal, setup_cmds=commands))
    make(ssh_cluster(metal, setup_cmds=commands))
    assert runs() == [1, 1, 1]
    metal.hosts[2].reboot()
    make(ssh_cluster(metal, setup_cmds=commands))
    assert runs() == [1, 1, 2]
    make(ssh_cluster(metal, setup_cmds=[*commands, "true"]))
    assert runs() == [2, 2, 3]
    make(ssh_cluster(metal, setup_cmds=[*commands, "true"]), force=True)
    assert runs() == [3, 3, 4]
    make(ssh_cluster(metal, setup_cmds=[*commands, "true"]), setup=True)
    assert runs() == [4, 4, 5]


def test_a_setup_command_that_fails_names_everything(metal: Metal) -> None:
    """FAULTS 13."""
    script = (
        "echo before; if [ $(hostname) = "
        + metal.hosts[1].name
        + " ]; then echo why >&2; exit 9; fi"
    )
    with pytest.raises(CommandError) as raised:
        make(ssh_cluster(metal, setup_cmds=["true", script, "echo never > never"]))
    error = raised.value
    assert error.host.startswith("factory_1 (")
    assert error.code == 9
    assert error.command == script
    assert "| why" in str(error)
    assert metal.hosts[1].run("ls", f"/home/{metal.hosts[1].user}").stdout.count("never") == 0


def test_what_people_get_wrong_is_put_right(metal: Metal) -> None:
    """Spelled as in the document: pip of today wants a section."""
    command = "pip config set index_url https://index.example"
    with pytest.raises(FanOutError, match="does not contain dot separated section") as raised:
        make(ssh_cluster(metal, setup_cmds=[command]))
    assert len(raised.value.errors) == 3
    assert "write the section of the key too:   pip config set global.index-url URL" in str(
        raised.value
    )


def test_pip_is_there_and_its_index_is_honoured(metal: Metal) -> None:
    commands = [
        "pip --version",
        "pip config set global.timeout 77",
        "pip config get global.timeout",
    ]
    told = make(ssh_cluster(metal, setup_cmds=commands))
    assert sorted(line[0] for line in told.lines if line[1] == "77") == [
        "factory_1",
        "factory_2",
        "orchestrator",
    ]


def test_a_changed_host_key_stops_everything(metal: Metal) -> None:
    """FAULTS 9: nothing is sent."""
    cluster = ssh_cluster(metal)
    for member in connected(cluster):
        member.connection.close()
    host = metal.hosts[1]
    host.new_host_key()
    with pytest.raises(HostKeyError, match="its host key is not the one that is known") as raised:
        make(ssh_cluster(metal, setup_cmds=["echo x > sent"]))
    assert raised.value.host.startswith("factory_1 (")
    assert "known_hosts, line" in str(raised.value)
    assert "sent" not in host.run("ls", f"/home/{host.user}").stdout
    # Its user removes the old key, as they were told.
    address = host.address
    known = cluster.local.known_hosts
    subprocess.run(
        ["ssh-keygen", "-q", "-R", address, "-f", str(known)], check=True, capture_output=True
    )
    connected(ssh_cluster(metal))


def test_a_host_that_is_never_reachable(metal: Metal, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 7."""
    monkeypatch.setattr("flambe.cluster.cluster_host.OLD_MACHINE", 3)
    monkeypatch.setattr("flambe.remote.login.CONNECT_TIMEOUT", 2)
    metal.hosts[2].drop(22)
    try:
        begun = time.monotonic()
        with pytest.raises(UnreachableError, match=r"factory_2 \(.*no connection within"):
            make(ssh_cluster(metal))
        assert time.monotonic() - begun < 60
    finally:
        metal.hosts[2].undrop(22)


def test_a_login_that_is_refused_is_told_at_once(metal: Metal) -> None:
    metal.hosts[0].forbid_login()
    try:
        with pytest.raises(UnreachableError, match="Permission denied") as raised:
            connected(ssh_cluster(metal))
        assert f"ssh -i {metal.key} ubuntu@{metal.hosts[0].address}" in str(raised.value)
    finally:
        metal.hosts[0].allow_login()


def test_a_new_machine_may_refuse_the_login_for_a_while(metal: Metal) -> None:
    """FAULTS 8: an open port 22 is not a login."""
    host = metal.hosts[0]
    member = _member(metal)
    host.forbid_login()
    timer = threading.Timer(3.0, host.allow_login)
    timer.start()
    try:
        member.connection.open(60, patient=True)
        assert member.run(["hostname"]).stdout.strip() == host.name
    finally:
        timer.join()


def _member(metal: Metal) -> Any:
    from flambe.cluster.cluster_host import ClusterHost

    cluster = ssh_cluster(metal)
    return ClusterHost(cluster.find_machines()[0], cluster.local, cluster.remote_dir)


def test_sshd_that_restarts_in_the_middle_of_a_command(metal: Metal) -> None:
    """FAULTS 10: what may be repeated is, what may not is told."""
    member, host = _member(metal), metal.hosts[0]
    member.connect()
    for repeat in (True, False):
        host.run("rm", "-f", f"/home/{host.user}/runs")
        timer = threading.Timer(1.5, host.restart_sshd)
        timer.start()
        script = "echo x >> runs; sleep 4; echo done"
        if repeat:
            assert member.run(["sh", "-c", script], repeat=True).stdout == "done\n"
        else:
            with pytest.raises(UnreachableError, match="connection was lost during"):
                member.run(["sh", "-c", script])
        timer.join()
        count = len(host.run("cat", f"/home/{host.user}/runs").stdout.split())
        assert count == (2 if repeat else 1)
    assert member.run(["hostname"]).stdout.strip() == host.name


def test_sshd_with_one_session_and_few_starts(metal: Metal) -> None:
    """FAULTS 11: it backs off, and works."""
    with restored(metal):
        for host in metal.hosts:
            host.restart_sshd("-oMaxSessions=1", "-oMaxStartups=1")
        member = _member(metal)
        member.connect()
        done: list[str] = []
        threads = [
            threading.Thread(
                target=lambda n=n: done.append(
                    member.run(["sh", "-c", f"sleep 0.3; echo {n}"]).stdout
                )
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == ["0\n", "1\n", "2\n", "3\n"]
        make(ssh_cluster(metal))


def test_a_full_disk_is_named_and_nothing_half_made_is_used(metal: Metal) -> None:
    """FAULTS 15."""
    host = metal.hosts[2]
    home = f"/home/{host.user}/small"
    host.fill(home, 60)
    cluster = ssh_cluster(metal, remote_dir="small/.flambe")
    try:
        with pytest.raises(RemoteError) as raised:
            make(cluster)
        assert "factory_2" in str(raised.value)
        assert "No space left" in str(raised.value) or "is full" in str(raised.value)
        assert host.run("sh", "-c", f"ls {home}/.flambe/envs/*/flambe.json || true").stdout == ""
    finally:
        host.run("umount", "-l", home)
    for other in metal.hosts:
        other.run("rm", "-rf", home)


def test_a_link_that_is_down_for_a_while_is_survived(metal: Metal) -> None:
    """FAULTS 16, the short one."""
    member, host = _member(metal), metal.hosts[0]
    member.connect()

    def break_off() -> None:
        host.cut()
        time.sleep(8)
        host.mend()

    timer = threading.Timer(1.0, break_off)
    timer.start()
    done = member.run(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 2; done"], deadline=60)
    timer.join()
    assert done.stdout.split() == list("123456")


def test_one_altered_byte_makes_it_refuse(metal: Metal) -> None:
    cluster = ssh_cluster(metal)
    make(cluster)
    host = metal.hosts[1]
    name = cluster.local.recall().environment
    place = f"/home/{host.user}/.flambe/envs/{name}/lib/python3.11/site-packages/flambe/errors.py"
    before = host.run("cat", place).stdout
    host.run("sh", "-c", f"printf '\\n' >> {place}")
    try:
        with pytest.raises(RunError, match="flambe/errors.py was altered") as raised:
            make(ssh_cluster(metal))
        assert "factory_1" in str(raised.value)
    finally:
        host.run("tee", place, input=before)
    make(ssh_cluster(metal))


def test_a_wheel_that_is_altered_on_its_way_is_not_installed(
    metal: Metal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 22: bytes are changed on the orchestrator before the factories have it."""
    from flambe.cluster.environment import installer

    cluster = ssh_cluster(metal, remote_dir=".flambe-22")
    original = installer.EnvironmentInstaller.install_on_factory

    def flip(self: Any, host: Any) -> None:
        first = metal.hosts[0]
        place = f"/home/{first.user}/{self.parts}/wheels"
        first.run(
            "sh",
            "-c",
            f"for f in {place}/flambe*.whl; do printf altered | dd of=$f bs=1 seek=900 conv=notrunc 2>/dev/null; done",
        )
        original(self, host)

    monkeypatch.setattr(installer.EnvironmentInstaller, "install_on_factory", flip)
    with pytest.raises(RemoteError, match="FAILED|checksum|did NOT match"):
        make(cluster)
    host = metal.hosts[1]
    assert (
        host.run("sh", "-c", f"ls /home/{host.user}/.flambe-22/envs/*/flambe.json || true").stdout
        == ""
    )


def test_two_clients_at_once(metal: Metal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 4: one works, the other names the holder; a dead holder's lock expires."""
    cluster = ssh_cluster(metal)
    make(cluster)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 4.0)
    with lock.held(cluster.context, "provision", "preparing the cluster"):
        with (
            pytest.raises(
                RemoteError, match="the cluster is in use: .* is preparing the cluster"
            ) as raised,
            lock.held(cluster.context, "provision", "preparing the cluster"),
        ):
            pass
        assert "pytest" in str(raised.value) or "expires after" in str(raised.value)
    # It was given back; and one whose holder is gone lapses.
    holder = LockHolder("u", "h", 1, doing="w", command="c")
    assert cluster.orchestrator.agent.ask(LockRequest("metal/provision", "gone", holder, 1.0)).taken
    time.sleep(1.5)
    with lock.held(cluster.context, "provision", "preparing the cluster"):
        pass


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([signal.SIGKILL], marks=pytest.mark.long, id="killed"),
        pytest.param([signal.SIGINT, signal.SIGINT], id="interrupted"),
    ],
)
def test_a_client_that_is_gone_leaves_nothing_that_hinders(
    metal: Metal, tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    """FAULTS 1 and 3, on hosts: in the middle of setup; and the same command converges."""
    name = f"gone{len(numbers)}"
    file = tmp_path / "cluster.yaml"
    setup = f'setup_cmds: ["echo begun; sleep 4; echo x >> {name}-count"]\n'
    file.write_text(f'{metal.cluster_yaml(name=name)}remote_dir: ".flambe-gone"\n{setup}')
    env = environment(FLAMBE_HOME=str(tmp_path / "home"))
    run = subprocess.Popen(
        command(file), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert run.stdout is not None
    output = run.stdout
    until(lambda: "begun" in output.readline(), "the setup command runs", 60)
    for number in numbers:
        run.send_signal(number)
        time.sleep(0.2)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == (130 if signal.SIGINT in numbers else -signal.SIGKILL)
    assert "Traceback" not in said
    # What it ran on the hosts was ended with it.
    time.sleep(5)
    for host in metal.hosts:
        assert f"{name}-count" not in host.run("ls", f"/home/{host.user}").stdout
    # Its lock is known to be a dead process's: nobody waits for it.
    done = subprocess.run(
        command(file), env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{name} is ready" in done.stdout
    for host in metal.hosts:
        assert host.run("cat", f"/home/{host.user}/{name}-count").stdout == "x\n"
    subprocess.run(command("down", str(file)), env=env, check=True, capture_output=True, timeout=60)


def test_another_users_run_is_left_alone(metal: Metal) -> None:
    """FAULTS 24: two Unix users of one host; each has a flambe of their own."""
    first = metal.hosts[0]
    key = first.add_user("bob")
    mine = connected(ssh_cluster(metal))[0]
    theirs = connected(
        SSHCluster("metal", first.address, key=str(key), username="bob", remote_dir=".flambe")
    )[0]
    for member in (mine, theirs):
        member.agent.ask(StartRequest("metal", ["sleep", "1000"]))
    stopped = mine.agent.ask(StopRequest("metal", 2.0))
    assert stopped is not None
    assert stopped.state is RunState.ENDED
    assert theirs.refresh("metal").runs["metal"].state.value == "running"
    theirs.agent.ask(StopRequest("metal", 2.0))


def test_a_remote_file_system_is_mounted_as_in_the_document(metal: Metal) -> None:
    """``sshfs`` as the first setup command: what is there is seen by what runs."""
    source = metal.hosts[2]
    for host in metal.hosts:
        host.run("sh", "-c", "[ -e /dev/fuse ] || mknod /dev/fuse c 10 229; chmod 666 /dev/fuse")
        host.run("tee", f"/home/{host.user}/mount-key", input=metal.key.read_text())
        host.run("chown", f"{host.user}:", f"/home/{host.user}/mount-key")
        host.run("chmod", "600", f"/home/{host.user}/mount-key")
    source.run("mkdir", "-p", "/srv/shared")
    source.run("tee", "/srv/shared/data.txt", input="the data\n")
    options = "StrictHostKeyChecking=accept-new,IdentityFile=$HOME/mount-key"
    commands = [
        "mkdir -p mounted",
        f"sshfs -o {options} {source.user}@{source.address}:/srv/shared $HOME/mounted",
    ]
    cluster = ssh_cluster(metal, setup_cmds=commands)
    make(cluster)
    for member in cluster.hosts:
        assert member.read("mounted/data.txt") == "the data\n"
    again = ssh_cluster(metal, setup_cmds=commands)
    assert "everything is in place" in make(again).notes
    for host in metal.hosts:
        host.run("umount", "-l", f"/home/{host.user}/mounted")


def test_a_log_goes_on_where_it_was_when_the_connection_is_lost(metal: Metal) -> None:
    member, host = _member(metal), metal.hosts[0]
    member.connect()
    script = "for i in $(seq 12); do echo line $i; sleep 0.5; done; exit 6"
    member.agent.ask(StartRequest("talk", ["bash", "-c", script]))
    timer = threading.Timer(2.0, host.restart_sshd)
    timer.start()
    lines: list[str] = []
    assert member.agent.follow("talk", lines.append) == 6
    timer.join()
    assert lines == [f"line {n}" for n in range(1, 13)]


def test_a_host_that_is_restarted_loses_its_run_and_says_so(metal: Metal) -> None:
    """FAULTS 19, on hosts: nobody saw how it ended."""
    member, host = _member(metal), metal.hosts[0]
    member.connect()
    member.agent.ask(StartRequest("metal", ["sleep", "1000"]))
    host.reboot()
    assert member.refresh("metal").runs["metal"].state.value == "lost"
    assert member.agent.follow("metal", lambda line: None) is None
