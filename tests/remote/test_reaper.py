"""What ends a host that nobody uses, as a process that ends nothing but a test."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import glob
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe._nvidia_smi import NvidiaSmiError
from flambe.remote.agent import leases
from flambe.remote.agent.files import boot_seconds
from flambe.remote.agent.protocol import LeaseRequest
from flambe.remote.agent.reaper import reaper
from flambe.remote.agent.reaper.probe import Probe
from flambe.remote.agent.reaper.settings import ReaperSettings, SettingsFile
from flambe.remote.agent.supervisor import _Log
from tests.experiment.lab import until

AGENT = Path(reaper.__file__).parent
HOUR = 3600.0
CLUSTER = "reaped"  # only what carries its marker counts: the machine of the tests is shared


class Host:
    """What a reaper takes for a host: a folder, whose end is a line in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "bin").mkdir()

    def settings(self, **more: Any) -> dict[str, Any]:
        values = {
            "timeout": 0,
            "cluster": CLUSTER,
            "lease": str(self.folder / "lease-*.json"),
            "typing": 0,
            "check": 0.1,
            "deadline": 1.0,
            "patience": 0.3,
            "command": self.writes("end"),
            "log": str(self.folder / "console"),
            "seen": str(self.folder / "seen.json"),
        }
        return {**values, **more}

    def writes(self, word: str, then: str = "exit 0") -> list[str]:
        note = f"echo $$ >> {self.folder}/sessions; echo {word} >> {self.folder}/asked"
        return ["sh", "-c", f"{note}; {then}"]

    def configure(self, **more: Any) -> Path:
        path = self.folder / "reaper.json"
        path.write_text(json.dumps(self.settings(**more)))
        return path

    def start(self, fallback: str = "") -> subprocess.Popen[bytes]:
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        with (self.folder / "reaper.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", reaper.__name__, f"{self.folder}/reaper.json", fallback],
                env={**os.environ, "PATH": path},
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def seen(self) -> dict[str, Any]:
        return dict(json.loads(self.read("seen.json") or "{}"))

    def await_asked(self, *words: str) -> list[str]:
        def enough() -> bool:
            return len(self.read("asked").split()) >= len(words)

        until(enough, f"it is asked to end: {words}", 60)
        asked = self.read("asked").split()
        assert asked[: len(words)] == list(words)
        return asked


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    for process in host.started:
        process.kill()
        process.wait()
    for pid in host.read("sessions").split():
        end_group(int(pid))


# -- what is idle ---------------------------------------------------------------------------------


class Days:
    """A host whose clock is turned: when it would end, by what its processors do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.used = 0.0
        self.leased: Callable[[float], bool] = lambda now: False
        # Nothing hangs here: a thread for each of a hundred thousand probes would take minutes.
        monkeypatch.setattr(Probe, "ask", lambda probe, deadline=0.0: probe._function())
        monkeypatch.setattr(reaper, "boot_seconds", lambda: self.now)
        monkeypatch.setattr(reaper, "processor_times", lambda cluster: {(1, "0"): self.used})
        monkeypatch.setattr(reaper, "gpus_in_use", lambda cluster: "")
        monkeypatch.setattr(reaper.Terminals, "use", lambda terminals, hours: "")
        needed = reaper.NEEDED
        monkeypatch.setattr(
            reaper.Leases, "use", lambda leases, pattern: needed * self.leased(self.now)
        )

    def until_end(
        self, timeout: float, cores: Callable[[float], float], *, check: float = 30, most: int = 10
    ) -> float:
        """Return after how many hours it ends; endlessly many where it does not."""
        watch = reaper.Watch()
        settings = ReaperSettings(command=["true"], timeout=timeout, check=check)
        while self.now < most * 24 * HOUR:
            self.used += cores(self.now) * check
            self.now += check
            if watch.due(settings):
                return self.now / HOUR
        return float("inf")


def every(hours: float, seconds: float) -> Callable[[float], float]:
    """Return what takes half a processor for some seconds, again and again."""
    return lambda now: 0.5 if now > 60 and now % (hours * HOUR) < seconds else 0.0


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(monkeypatch)


@pytest.mark.parametrize(
    ("timeout", "cores", "ends"),
    [
        (24, every(12, 30), 24.5),  # the daily jobs of the system
        (24, every(1, 90), 25),
        (0.5, every(0.25, 30), 0.75),
        (5, every(100, 0), 5.1),
    ],
)
def test_jobs_of_a_moment_do_not_keep_a_host(
    days: Days, timeout: float, cores: Callable[[float], float], ends: float
) -> None:
    assert timeout <= days.until_end(timeout, cores) <= ends


def training(start: float, epoch: float, gap: float) -> Callable[[float], float]:
    """Return what computes for an epoch, and waits, by turns, from an hour on."""

    def cores(now: float) -> float:
        since = now - start * HOUR
        return 1.0 if since >= 0 and since % ((epoch + gap) * HOUR) < epoch * HOUR else 0.0

    return cores


@pytest.mark.parametrize(
    ("timeout", "cores"),
    [
        (0.5, training(0.1, 0.7, 0.4)),  # its gaps are shorter than the timeout
        (24, training(23.9, 0.1, 0.3)),  # it begins when the host is about to end
        (5, training(4.9, 0.2, 1.0)),
        (1, every(0.5, 180)),  # a tenth of the time
    ],
)
def test_a_training_with_gaps_keeps_its_host(
    days: Days, timeout: float, cores: Callable[[float], float]
) -> None:
    assert days.until_end(timeout, cores, check=120, most=3) == float("inf")


def test_processors_count_where_gpus_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, days: Days
) -> None:
    def unreadable(cluster: str) -> str:
        raise NvidiaSmiError("no answer")

    monkeypatch.setattr(reaper, "gpus_in_use", unreadable)
    assert days.until_end(1, training(0.5, 0.5, 0.5), check=120, most=2) == float("inf")
    days.now = 0.0
    assert days.until_end(1, lambda now: 0.0, check=60) <= 1.1


def test_the_whole_timeout_is_left_after_long_use_and_after_a_lease(days: Days) -> None:
    busy = days.until_end(3, lambda now: 2.0 * (now < 10 * HOUR))
    assert 13 <= busy <= 13.1
    days.now = 0.0
    days.leased = lambda now: 2 * HOUR < now < 2.01 * HOUR
    assert 5 <= days.until_end(3, lambda now: 0.0) <= 5.1


# -- what hangs -----------------------------------------------------------------------------------


def test_a_shutdown_that_hangs_is_followed_by_others(host: Host) -> None:
    """And those by the first again, as long as the host is there."""
    host.configure(
        command=host.writes("first", "sleep 1000"),
        escalate=[
            {"command": host.writes("second", "exit 1"), "patience": 60},
            {"command": ["/nowhere/poweroff"], "patience": 60},
            {"command": host.writes("third", "sleep 1000 & sleep 1000"), "patience": 0.3},
            {"write": str(host.folder / "sysrq-trigger"), "text": "o", "patience": 0.3},
        ],
    )
    host.start()
    host.await_asked("first", "second", "third", "first", "second", "third", "first")
    assert host.read("sysrq-trigger") == "o"
    console = host.read("console")
    assert "flambe ends this host: it was idle for 0.00 hours" in console
    assert "this host did not end by sh -c" in console
    assert "/nowhere/poweroff: no such file or directory" in host.read("reaper.log")


def test_what_begins_to_need_a_host_stops_its_end(host: Host) -> None:
    host.configure(
        command=host.writes("first", f"echo '{{\"until\": {time.time() + 600}}}' > {host.folder}/lease-a.json"),
        escalate=[{"command": host.writes("second")}],
    )  # fmt: skip
    host.start()
    until(lambda: "is needed again" in host.read("console"), "it is let be", 30)
    until(lambda: host.seen().get("use") == "a run needs it", "it is looked at again", 30)
    assert host.read("asked").split() == ["first"]


def test_a_kernel_that_is_shared_is_not_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is written there, as the file is no trigger; see what guards the real one."""
    from flambe.remote.agent.reaper import escalation

    monkeypatch.setattr(escalation, "FIRST_NAMESPACE", "another")
    trigger = tmp_path / "trigger"
    trigger.symlink_to("/proc/self/comm")
    before = Path("/proc/self/comm").read_text()
    assert not escalation.write(str(trigger), "o")
    assert Path("/proc/self/comm").read_text() == before


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("trap '' TERM; sleep 1000", "no answer"),  # its child holds the output, whoever is killed
        ("echo 'Driver/library version mismatch'; exit 18", "Driver/library version mismatch"),
    ],
)
def test_gpus_that_cannot_be_read_neither_keep_a_host_nor_end_it(
    host: Host, program: str, problem: str
) -> None:
    smi = host.folder / "bin/nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho $$ >> {host.folder}/pids\n{program}\n")
    smi.chmod(0o755)
    leases.take(str(host.folder), LeaseRequest("run", 600.0))
    host.configure()
    host.start()
    until(lambda: host.seen().get("use") == "a run needs it", "its lease is seen", 60)
    assert host.read("asked") == ""
    leases.give_back(str(host.folder), "run")
    host.await_asked("end")
    (text,) = host.seen()["problems"]
    assert text.startswith("GPUs cannot be read: ")
    assert problem in text
    asked = host.read("pids").split()
    assert len(asked) == 1 or "mismatch" in problem  # one at a time, however often it looks
    for pid in asked:
        end_group(int(pid))


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A disk on which whoever writes waits in the kernel, and cannot be killed."""
    image, folder = tmp_path / "disk", tmp_path / "frozen"
    folder.mkdir()
    image.write_bytes(bytes(8 * 2**20))
    make = ["mkfs.ext4", "-q", "-F", str(image)]
    for command in (make, ["mount", "-o", "loop", str(image), str(folder)]):
        if shutil.which(command[0]) is None:
            pytest.skip(f"needs {command[0]}")
        if subprocess.run(command, check=False, capture_output=True, timeout=60).returncode:
            pytest.skip("no loop devices here")
    try:
        subprocess.run(["fsfreeze", "-f", folder], check=True, timeout=60)
        yield folder
    finally:
        subprocess.run(["fsfreeze", "-u", folder], check=False, timeout=60)
        subprocess.run(["umount", "-l", folder], check=True, timeout=60)


@pytest.mark.root
@pytest.mark.faults
def test_what_waits_in_the_kernel_is_left_behind(host: Host, frozen: Path) -> None:
    """Both nvidia-smi and what ends the host: neither dies, and neither is waited for."""
    smi = host.folder / "bin/nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho $$ > {host.folder}/pid\necho x > {frozen}/x\n")
    smi.chmod(0o755)
    host.configure(
        command=host.writes("first", f"echo x > {frozen}/y"),
        escalate=[{"command": host.writes("second"), "patience": 0.3}],
    )
    reaped = host.start()
    host.await_asked("first", "second", "first", "second")
    stat = Path(f"/proc/{int(host.read('pid'))}/stat").read_text()
    assert stat.rpartition(")")[2].split()[0] == "D"
    assert host.seen()["problems"] == ["GPUs cannot be read: no answer"]
    reaped.kill()


def end_group(pid: int) -> None:
    """End what hangs on purpose, with its children."""
    with contextlib.suppress(OSError):  # it ends by itself
        for child in Path("/proc").glob(f"{pid}/task/*/children"):
            for number in child.read_text().split():
                os.kill(int(number), signal.SIGKILL)


# -- what is forgotten ----------------------------------------------------------------------------


def test_settings_that_cannot_be_read_are_those_before(host: Host) -> None:
    path = host.configure(timeout=100)
    reaped = host.start()
    until(lambda: host.seen() and (host.folder / "reaper.json.good").exists(), "it looks", 30)
    path.write_text('{"timeout": 0, "comm')
    until(lambda: "reaper.json cannot be used" in host.read("reaper.log"), "it is reported", 30)
    until(lambda: host.seen().get("problems"), "it is shown", 30)
    assert host.seen()["problems"] == [f"{path} cannot be used: it holds no settings"]
    reaped.kill()
    reaped.wait()
    host.start()
    until(lambda: host.read("reaper.log").count("cannot be used") == 2, "again", 30)
    host.configure(timeout=0)
    host.await_asked("end")
    assert host.read("asked").split() == ["end"] * len(host.read("asked").split())
    assert "can be used again" in host.read("reaper.log")


def test_a_host_without_settings_ends_by_those_of_its_launch(host: Host) -> None:
    launch = host.folder / "first.json"
    launch.write_text(json.dumps(host.settings(ready="/nowhere", provisioning=0.0)))
    (host.folder / "reaper.json").write_text("\0" * 300)
    host.start(str(launch))
    host.await_asked("end")
    assert "it was not ready within 0 hours" in host.read("console")


@pytest.mark.parametrize(
    "settings",
    [
        "[]",
        "{}",
        '{"command": "shutdown"}',
        '{"command": ["true"], "timeout": NaN}',
        '{"command": ["true"], "timeout": "soon"}',
        '{"command": ["true"], "lease": 3}',
        '{"command": ["true"], "escalate": [{"write": "/x"}]}',
        '{"command": ["true"], "escalate": [{"command": ["true"], "patience": 1e999}]}',
        "[" * 100_000,
    ],
)
def test_settings_that_would_end_nothing_are_not_taken(tmp_path: Path, settings: str) -> None:
    (tmp_path / "s.json").write_text(settings)
    assert SettingsFile(str(tmp_path / "s.json"), "").read() is None


def test_a_reaper_that_is_started_again_continues_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: Days
) -> None:
    """Within a boot; after another one, it begins again."""
    path, settings = str(tmp_path / "state"), ReaperSettings(command=["true"], timeout=2)
    for _ in range(60):
        days.now += 30
        watch = reaper.Watch(path)
        for _ in range(2):  # it is killed all the time
            days.now += 30
            if reason := watch.due(settings):
                break
        if reason:
            break
    assert not reason
    assert 0.45 * HOUR < watch.state.unneeded < 0.55 * HOUR  # what it saw, of 1.5 hours
    # A host that is not ready ends, however often its reaper was started.
    unready = dataclasses.replace(settings, provisioning=1, ready="/nowhere")
    watch = reaper.Watch(path)
    assert watch.due(unready) == "it was not ready within 1 hours"
    monkeypatch.setattr(reaper, "start_id", lambda: "another boot")
    assert reaper.Watch(path).due(unready) == ""


def test_the_time_of_day_does_not_prolong_a_lease(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor does it shorten one, or make what was typed long ago new."""
    watched, terminals = reaper.Leases(), reaper.Terminals()

    def leased() -> str:
        return watched.use(str(tmp_path / "lease-*.json"))

    def typed() -> str:
        return terminals.use(1.5 / HOUR)

    leases.take(str(tmp_path), LeaseRequest("run", 1.5))
    (tmp_path / "lease-old.json").write_text(json.dumps({"until": time.time() + 1.5}))
    _, terminal = pty.openpty()
    name = os.ttyname(terminal)
    monkeypatch.setattr(glob, "glob", lambda pattern: glob_of(pattern, name))
    os.utime(name)
    assert leased() and typed()
    day = time.time
    monkeypatch.setattr(time, "time", lambda: day() - 86400)
    until(lambda: not leased(), "its lease ends", 30)
    until(lambda: not typed(), "nobody types", 30)
    # A lease of another boot is judged by the time of day, and does not last for ever.
    lease = {"until": day() + 10 * 86400, "boot": "another", "clock": 1e12}
    (tmp_path / "lease-run.json").write_text(json.dumps(lease))
    assert leased()
    (ends,) = (end for (path, _), end in watched.ends.items() if "run" in path)
    assert ends - boot_seconds() <= reaper.LONGEST_LEASE
    monkeypatch.setattr(time, "time", lambda: day() + 86400)
    leases.take(str(tmp_path), LeaseRequest("run", 60.0))
    monkeypatch.setattr(time, "time", lambda: day() + 2 * 86400)
    assert leased()


def glob_of(pattern: str, terminal: str) -> list[str]:
    if pattern.startswith("/dev/pts"):
        return [terminal]
    return [str(path) for path in Path(pattern).parent.glob(Path(pattern).name)]


def test_the_silence_of_a_run_is_not_judged_by_the_time_of_day(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "output.log"
    path.touch()
    log, day = _Log(str(path)), time.time
    log.silence()
    monkeypatch.setattr(time, "time", lambda: day() - 86400)
    until(lambda: log.silence() > 0.2, "it is silent", 30)
    path.write_text("a line\n")
    assert log.silence() < 0.2


def test_a_second_reaper_waits_for_the_first(host: Host) -> None:
    host.configure(timeout=100)
    first = host.start()
    until(host.seen, "the first looks", 30)
    host.start()
    before = (host.folder / "reaper.json.state").stat().st_ino
    until(lambda: (host.folder / "reaper.json.state").stat().st_ino != before, "it looks on", 30)
    host.configure(timeout=0)
    first.kill()
    host.await_asked("end")


def test_it_ends_once_where_it_is_to(host: Host) -> None:
    host.configure(once=True, command=host.writes("again", "[ -e second ] || { touch second; exit 1; }"))  # fmt: skip
    reaped = host.start()
    assert reaped.wait(timeout=60) == 0
    assert host.read("asked").split() == ["again", "again"]
    (Path.cwd() / "second").unlink()


@pytest.mark.parametrize("path", sorted(AGENT.glob("*.py")), ids=lambda path: path.name)
def test_what_runs_on_hosts_is_python_3_8(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 8))
