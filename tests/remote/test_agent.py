"""The agent's own functions, on this machine."""

from __future__ import annotations

import io
import json
import os
import pwd
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flambe.remote import agent_client
from flambe.remote.agent import gpus, host_state, keys, locks, processes, supervisor
from flambe.remote.agent.protocol import (
    ForgetKeysRequest,
    KeysRequest,
    LockAnswer,
    LockHolder,
    LockRequest,
    MarkRequest,
    RunState,
    RunStatus,
    StartRequest,
    StopRequest,
    UnlockRequest,
)

ROOT = ".flambe"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    for name in supervisor.statuses(str(tmp_path / ROOT)):
        supervisor.stop(str(tmp_path / ROOT), StopRequest(name, 0.5))


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def start(
    place: Path, script: str, name: str = "job", removed: Sequence[str] = (), keep: bool = False
) -> RunStatus:
    request = StartRequest(
        name=name,
        command=["sh", "-c", script],
        folder=str(place),
        env={"COLOUR": "blue"},
        about={"user": "ann"},
        removed=list(removed),
        keep=keep,
    )
    return supervisor.start(str(place / ROOT), request)


def status(place: Path, name: str = "job") -> RunStatus:
    run = supervisor.status(str(place / ROOT), name)
    assert run is not None
    return run


def stop(place: Path, grace: float = 20.0) -> RunStatus:
    run = supervisor.stop(str(place / ROOT), StopRequest("job", grace))
    assert run is not None
    return run


def has_ended(place: Path) -> RunStatus | None:
    run = status(place)
    return run if run.state is RunState.ENDED else None


def test_the_archive_runs_by_itself(place: Path) -> None:
    """Standard library only: nothing of this environment can be imported."""
    path = place / "agent.pyz"
    path.write_bytes(agent_client.archive())
    with zipfile.ZipFile(io.BytesIO(agent_client.archive())) as opened:
        assert "flambe/remote/agent/supervisor.py" in opened.namelist()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "report"],
        input='{"cluster": "c"}',
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    report = json.loads(done.stdout)
    assert report["facts"]["cpus"] >= 1
    assert report["facts"]["home"] == str(place)
    assert (report["marks"], report["runs"], report["locks"]) == ({}, {}, {})
    assert report["environment"] is None


def test_a_process_outlives_who_started_it(place: Path) -> None:
    begun = start(place, "echo $COLOUR; pwd; echo bad >&2; exit 7")
    assert begun.started_now
    found = until(lambda: has_ended(place))
    assert found.code == 7
    assert found.about == {"user": "ann"}
    assert Path(found.log).read_text() == f"blue\n{place}\nbad\n"
    assert os.stat(found.log).st_mode & 0o077 == 0


def test_one_of_a_name_runs_at_a_time(place: Path) -> None:
    first = start(place, "sleep 100")
    again = start(place, "echo no")
    assert not again.started_now
    assert again.pid == first.pid
    assert stop(place).code == 128 + signal.SIGTERM
    assert start(place, "true").started_now


def test_all_that_it_started_is_ended_with_it(place: Path) -> None:
    """Children in sessions of their own, and those that ignore a request, too."""
    script = """
    setsid sh -c 'trap "" TERM; echo $$ > deaf; sleep 1000' &
    setsid sleep 1000 & echo $! > other
    wait
    """
    start(place, script)
    pids = []
    for name in ("deaf", "other"):
        path = place / name
        until(lambda path=path: path.exists() and path.read_text())  # type: ignore[misc]
        pids.append(int(path.read_text()))
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        stop(place, 1.0)
        for pid in pids:
            assert processes.started(pid) == -1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_what_it_left_behind_is_ended_at_its_end(place: Path) -> None:
    start(place, "setsid sleep 1000 & echo $! > other; exit 0")
    until(lambda: has_ended(place))
    assert processes.started(int((place / "other").read_text())) == -1


def test_files_are_deleted_at_its_end_however_it_ends(place: Path) -> None:
    secret = place / "secret"
    for script in ("exit 0", "exit 3", "kill -KILL $$", "sleep 1000"):
        secret.write_text("x")
        start(place, script, removed=[str(secret)])
        if script.startswith("sleep"):
            stop(place, 1.0)
        until(lambda: has_ended(place))
        assert not secret.exists(), script


def test_a_killed_supervisor_is_noticed_and_takes_the_process_along(place: Path) -> None:
    old, new = place / "old", place / "new"
    old.write_text("x")
    found = start(place, "sleep 1000", removed=[str(old)])
    os.kill(found.supervisor[0], signal.SIGKILL)
    until(lambda: status(place).state is RunState.LOST)
    until(lambda: processes.started(found.pid) == -1)
    # What it could not delete is deleted by whoever stops it, and not when something else starts:
    # that may have files of the same names.
    stop(place)
    assert not old.exists()
    new.write_text("x")
    assert start(place, "sleep 1000", removed=[str(new)]).started_now
    assert new.exists()
    stop(place, 1.0)
    for _ in range(2):
        old.write_text("x")
        assert start(place, "sleep 0.3", removed=[str(old)]).started_now
        assert old.exists()
        until(lambda: has_ended(place))


def test_a_command_that_does_not_exist(place: Path) -> None:
    request = StartRequest(name="job", command=["/nowhere/program"], folder=str(place))
    supervisor.start(str(place / ROOT), request)
    found = until(lambda: has_ended(place))
    assert found.code == 127
    assert "cannot start /nowhere/program" in Path(found.log).read_text()


def test_a_log_is_followed_from_any_offset(place: Path, capfdbinary: Any) -> None:
    start(place, "echo one; echo two; printf three")
    until(lambda: has_ended(place))
    assert supervisor.follow(str(place / ROOT), "job", 0) == 0
    assert capfdbinary.readouterr().out == b"4 one\n8 two\n13 three\nend 0\n"
    supervisor.follow(str(place / ROOT), "job", 4)
    assert capfdbinary.readouterr().out == b"8 two\n13 three\nend 0\n"
    supervisor.follow(str(place / ROOT), "job", 0, once=True)
    assert capfdbinary.readouterr().out == b"4 one\n8 two\n13 three\n"
    assert supervisor.follow(str(place / ROOT), "other", 0) == 3


def acquire(root: str, name: str, token: str, user: str, seconds: float) -> LockAnswer:
    holder = LockHolder(
        user, "laptop", 7, {"namespace": "pid:[1]"}, "is starting a run", "flambe a"
    )
    return locks.acquire(root, LockRequest(name, token, holder, seconds))


def test_locks_name_their_holder_and_expire(place: Path) -> None:
    root = str(place / ROOT)
    mine = acquire(root, "run", "token", "ann", 60)
    assert mine.taken
    # The other gets all that is known of who holds it, as it was written.
    other = acquire(root, "run", "other", "bob", 60)
    assert other == LockAnswer(False, mine.holder, mine.since, "token")
    assert mine.holder.user == "ann"
    assert acquire(root, "provision", "other", "bob", 60).taken
    assert acquire(root, "run", "token", "ann", 0.0).taken, "it is renewed"
    assert acquire(root, "run", "other", "bob", 60).taken, "it has expired"
    assert not locks.release(root, UnlockRequest("run", "token"))
    assert locks.release(root, UnlockRequest("run", "other"))
    assert set(locks.read(root)) == {"provision"}


def test_marks_are_forgotten_when_the_host_is_started_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(place / ROOT)
    host_state.write(root, MarkRequest("c", "setup", "abc", boot=True))
    host_state.write(root, MarkRequest("c", "kept", 1))
    assert host_state.read(root, "c") == {"setup": "abc", "kept": 1}
    assert host_state.read(root, "d") == {}
    monkeypatch.setattr(host_state, "boot_id", lambda: "another")
    assert host_state.read(root, "c") == {"kept": 1}


def test_keys_are_installed_and_removed_and_others_are_left(place: Path) -> None:
    ssh = place / ".ssh"
    ssh.mkdir()
    (ssh / "authorized_keys").write_text("ssh-ed25519 AAAA mine\nssh-ed25519 CCCC flambe:other\n")
    (ssh / "config").write_text("Host x\n  User y\n")
    before = {p.name: p.read_text() for p in ssh.iterdir()}
    public = "ssh-ed25519 BBBB flambe:c\n"
    for _ in range(2):
        keys.install(KeysRequest("c", "PRIVATE\n", public, "Host *\n", "h k\n"))
    installed = keys.read("c")
    assert installed.pair
    assert installed.authorized
    assert installed.peers
    lines = (ssh / "authorized_keys").read_text().splitlines()
    assert lines == [*before["authorized_keys"].splitlines(), public.strip()]
    assert (ssh / "config").read_text() == f"Include {ssh}/flambe-c.config\nHost x\n  User y\n"
    assert (ssh / "flambe-c").stat().st_mode & 0o777 == 0o600
    keys.remove(ForgetKeysRequest("c"))
    assert {p.name: p.read_text() for p in ssh.iterdir()} == before
    assert keys.read("c").pair == ""


def test_gpus_as_nvidia_smi_reports_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: a program that answers as nvidia-smi does stands in for it."""
    program = place / "bin" / "nvidia-smi"
    program.parent.mkdir()
    mine = os.getpid()
    program.write_text(
        "#!/bin/sh\n"
        f"case $1 in *compute*) echo 'GPU-a, {mine}, 10900'; echo 'GPU-a, 4194305, [N/A]'; exit ;; esac\n"
        "echo '0, GPU-a, NVIDIA A10G, 23028, 11000, 97'\n"
        "echo '1, GPU-b, Tesla, 100, [N/A], 0'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    first, second = gpus.list_gpus()
    assert (first.name, first.busy, first.used // 1024**2) == ("NVIDIA A10G", 97, 11000)
    assert (second.index, second.uuid, second.used) == (1, "GPU-b", 0)
    assert second.processes == []
    visible, hidden = first.processes
    assert (visible.pid, visible.memory // 1024**2, visible.run) == (mine, 10900, "")
    assert visible.user == pwd.getpwuid(os.getuid()).pw_name
    assert (hidden.user, hidden.memory) == ("", 0)
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpus.list_gpus() == []


def test_times_are_by_one_clock(place: Path) -> None:
    started = start(place, "sleep 100")
    path = place / ROOT / "runs" / "job" / "status.json"
    record = json.loads(path.read_text())
    # As if the clock of the host was set an hour ahead meanwhile, or back.
    for shift in (-3600, 3600):
        path.write_text(json.dumps({**record, "started": record["started"] + shift}))
        assert 0 <= status(place).started_ago < 600
    # An earlier version noted the time alone.
    del record["started_counted"]
    path.write_text(json.dumps({**record, "started": record["started"] - 3600}))
    assert 3600 <= status(place).started_ago < 4200
    assert started.ended_ago is None
    stop(place, 1.0)
    ended_ago = status(place).ended_ago
    assert ended_ago is not None
    assert 0 <= ended_ago < 600


def test_an_nvidia_smi_that_hangs_is_left_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child holds its output, whoever is killed: as where a driver hangs, the end never comes."""
    from flambe.logging import load

    (place / "bin").mkdir()
    program, pids = place / "bin" / "nvidia-smi", place / "pids"
    program.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! >> {pids}\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "DEADLINE", 0.3)
    monkeypatch.setattr(load, "DEADLINE", 0.3)
    try:
        assert gpus.list_gpus() == []
        assert load.measure()["gpus"] == []
    finally:
        for pid in until(lambda: pids.exists() and pids.read_text()).split():
            os.kill(int(pid), signal.SIGKILL)
