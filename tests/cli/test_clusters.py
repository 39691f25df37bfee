"""The commands for clusters, as people type them, on a cluster of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.cli.targets import read_cluster
from flambe.cluster import Cluster
from tests.cluster.place import Place, local, typed
from tests.experiment.lab import COMMAND, until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("local-cluster")]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "clusters").glob("*.yaml"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with local(tmp_path_factory.mktemp("place"), "here") as made:
        yield made


def test_a_job_runs_here_and_on_the_cluster_and_ends_with_its_code(place: Place) -> None:
    job = place.job(code=3)
    assert place.flambe(job).stdout == "alone\n"
    done = place.flambe(job, "--cluster", place.cluster)
    assert done.returncode == 3, done.stderr
    lines = ["host content ", "host content ", "secret none", "step 0", "step 1", "step 2"]
    assert "\n".join(lines) in done.stdout
    # Afterwards: its log, its state, its results.
    logs = place.flambe("logs", "here")
    assert logs.stdout.splitlines() == lines
    status = place.flambe("status")
    assert "orchestrator" in status.stdout
    assert "factory_1" in status.stdout
    assert "with exit code 3" in status.stdout
    fetched = place.flambe("fetch", "here", "fetched")
    assert fetched.returncode == 0, fetched.stderr
    assert (place.folder / "fetched" / "result.txt").read_text() == "the result"
    assert place.flambe("logs", "here", "-f").returncode == 3


def test_what_setup_commands_install_is_found_by_what_runs(tmp_path: Path) -> None:
    """In a folder that only a login looks into."""
    with local(tmp_path / "place", "installs") as place:
        place.cluster.write_text(
            "!LocalCluster\nname: installs\nfactories_num: 0\nsetup_cmds:\n"
            "  - mkdir -p ~/.local/bin && echo 'PATH=~/.local/bin:$PATH; echo hello' > ~/.profile\n"
            "  - printf '#!/bin/sh\\necho 42\\n' > ~/.local/bin/answer\n"
            "  - chmod +x ~/.local/bin/answer && cp ~/.local/bin/answer ~/.local/bin/answer-forced\n"
        )
        job = place.job("Calls", program="answer")
        for more in ((), ("--force",)):
            done = place.flambe(job, "--cluster", place.cluster, *more)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "it says 42" in done.stdout


def test_the_second_time_everything_is_in_place(place: Place) -> None:
    place.flambe(place.cluster)
    again = place.flambe(place.cluster)
    assert again.returncode == 0, again.stderr
    assert "everything is in place" in again.stdout
    assert "here is ready" in again.stdout


def test_whoever_leaves_can_come_back(place: Place) -> None:
    run = place.start(place.job(steps=60), "--cluster", place.cluster)
    assert run.stdout is not None
    output = run.stdout
    until(lambda: "step 1" in output.readline(), "the run is shown", 120)
    os.killpg(run.pid, signal.SIGINT)
    left = output.read()
    assert run.wait(30) == 130
    assert "the run continues; reconnect with" in left
    assert "flambe logs here -f" in left
    output.close()
    # Another is refused, and told whose run it is.
    other = place.flambe(place.job(steps=1), "--cluster", place.cluster)
    assert other.returncode == 1
    assert "the cluster is in use" in other.stderr
    assert "job.yaml --cluster" in other.stderr
    assert "--force" in other.stderr
    back = place.flambe("logs", "here", "-f")
    assert back.returncode == 0
    assert [line for line in back.stdout.splitlines() if line.startswith("step")] == [
        f"step {n}" for n in range(60)
    ]


def test_force_takes_the_place_of_a_run_and_stop_ends_one(place: Place) -> None:
    started = place.flambe(place.job(steps=1000), "--cluster", place.cluster, "--detach")
    assert started.returncode == 0, started.stderr
    assert "running for" in place.flambe("status", "here").stdout
    refused = place.flambe("down", "here")
    assert refused.returncode == 1
    taken = place.flambe(place.job(steps=1), "--cluster", place.cluster, "--force")
    assert taken.returncode == 0, taken.stderr
    assert "stopping the run of" in taken.stdout
    place.flambe(place.job(steps=1000), "--cluster", place.cluster, "--detach")
    time.sleep(1)
    stopped = place.flambe("stop", "here")
    assert stopped.returncode == 0
    assert "has ended" in stopped.stdout


def test_secrets_travel_as_a_file_and_are_deleted(place: Place) -> None:
    secrets = place.folder / "secrets.ini"
    secrets.write_text("[API]\ntoken = canary-4711\n[flambe]\nfactories = API\n")
    secrets.chmod(0o600)
    run = place.start(place.job(steps=6), "--cluster", place.cluster, "--secrets", secrets)
    assert run.stdout is not None
    output = run.stdout
    text = ""
    while "step 1" not in text:
        line = output.readline()
        assert line, f"it ended: {text}"
        text += line
    sent = list((place.folder / "home").rglob("secrets.ini"))
    assert [path.stat().st_mode & 0o777 for path in sent] == [0o600, 0o600]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            for name in ("cmdline", "environ"):
                try:
                    assert b"canary-4711" not in (entry / name).read_bytes()
                except OSError:
                    continue
    text += output.read()
    assert run.wait(60) == 0, text
    output.close()
    assert "secret ***" in text
    assert "canary" not in text
    assert list((place.folder / "home").rglob("secrets.ini")) == []
    everything = [p for p in (place.folder / "home").rglob("*.log") if p.is_file()]
    assert [p for p in everything if b"canary" in p.read_bytes()] == []


def test_commands_on_hosts(place: Place) -> None:
    both = place.flambe("exec", "here", "--all", "--", "sh", "-c", "echo $HOME")
    assert sorted(line.split(" | ")[0] for line in both.stdout.splitlines()) == [
        "factory_1",
        "orchestrator",
    ]
    one = place.flambe(
        "exec", "here", "--host", "factory_1", "--", "sh", "-c", "echo $HOME; exit 4"
    )
    assert one.returncode == 4
    assert one.stdout.strip().endswith("hosts/factory_1/home")
    wrong = place.flambe("exec", "here", "--host", "factory_2", "--", "true")
    assert wrong.returncode == 2
    assert "the hosts: orchestrator, factory_1" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("!SSHCluster {name: a b, orchestrator_ip: h}", "'a b' is not a name"),
        ("!SSHCluster {name: a, orchestrator_ip: 'h:x'}", "no port from 1 to 65535"),
        (
            "!SSHCluster {name: a, orchestrator_ip: h, factories_ips: [i, h]}",
            "already the address of the orchestrator",
        ),
        ("!SSHCluster {name: a, orchestrator_ip: h, key: nowhere}", "cannot read the key"),
        ("!SSHCluster {name: a, orchestrator_ip: h, key: open}", "others can read the private key"),
        ("!SSHCluster {name: a}", "needs the keyword 'orchestrator_ip'"),
        ("!SSHCluster {name: a, orchestrator_ip: h, setup_cmd: [x]}", "did you mean 'setup_cmds'?"),
        ("!SSHCluster {name: a, orchestrator_ip: h, environment: {indexurl: x}}", "'index_url'"),
        ("!LocalCluster {name: a, factories_num: -1}", "factories_num cannot be -1"),
        ("!Evaluator {}", "needs the keyword"),
    ],
)
def test_a_wrong_cluster_file_is_told_before_anything(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "open").write_text("key")
    (tmp_path / "open").chmod(0o644)
    file = tmp_path / "cluster.yaml"
    file.write_text(f"{text}\n")
    done = typed(tmp_path, file)
    assert done.returncode == 2
    assert told in done.stderr
    assert f"{file}:1:" in done.stderr
    assert not (tmp_path / "home" / "clusters").exists()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_describe_clusters(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").touch(mode=0o600)
    assert isinstance(read_cluster(str(file)), Cluster)


def test_only_a_cluster_runnable_runs_on_a_cluster(place: Place) -> None:
    job = place.folder / "hello.yaml"
    job.write_text("!Script {script: cluster.yaml}\n")
    done = place.flambe(job, "--cluster", place.cluster)
    assert done.returncode == 2
    assert "!Script cannot run on a cluster" in done.stderr
    assert "hello.yaml:1:1" in done.stderr
    lost = place.flambe(place.job("Lost"), "--cluster", place.cluster)
    assert lost.returncode == 2
    assert "!job_ext.Lost cannot run on a cluster: it has no keyword 'env'" in lost.stderr
    unknown = place.flambe("status", "nobody")
    assert unknown.returncode == 2
    assert "no cluster 'nobody'" in unknown.stderr


def test_taking_it_down_leaves_the_results_and_no_process(place: Place) -> None:
    place.flambe(place.cluster)
    done = place.flambe("down", "here")
    assert done.returncode == 0, done.stderr
    assert "here is down" in done.stdout
    assert f"flambe fetch {place.cluster}   copies the results to this machine" in done.stdout
    mark = str(place.folder / "home")
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if mark in line and "ssh" not in line.split("\0")[0]:
                left.append(line)
    assert left == []
    assert list((place.folder / "home").rglob("work/result.txt")) != []
    assert place.flambe("status", "here").returncode == 2


@pytest.mark.faults
def test_ctrl_c_ends_the_wait_for_a_host(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    # Addresses that nobody has.
    file.write_text(
        "!SSHCluster {name: a, orchestrator_ip: 203.0.113.1, factories_ips: [203.0.113.2]}\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(file)],
        env={**os.environ, "FLAMBE_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    until((tmp_path / "home" / "clusters" / "a").exists, "it begins", 30)
    time.sleep(2)
    begun = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert (run.returncode, said) == (130, "interrupted\n")
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("environment: {extras: learn}", "extras cannot be 'learn'"),
        ("environment: {extras: [lern]}", "extras names 'lern', which flambe does not have"),
    ],
)
def test_extras_that_there_are_not(tmp_path: Path, text: str, told: str) -> None:
    place = Place(tmp_path, f"!LocalCluster {{name: x, {text}}}\n")
    done = place.flambe(place.cluster)
    assert done.returncode == 2
    assert told in done.stderr


def test_what_is_told_before_anything_is_touched(tmp_path: Path) -> None:
    place = Place(tmp_path, "!LocalCluster {name: untouched, factories_num: 0}\n")
    alone = place.flambe(place.job(), "--detach")
    assert (alone.returncode, "--detach requires --cluster" in alone.stderr) == (2, True)
    secrets = place.folder / "secrets.ini"
    secrets.write_text("[API]\ntoken = canary-4711\n[flambe]\nfactories = APY\n")
    secrets.chmod(0o600)
    for more in ([], ["--dry-run"]):
        done = place.flambe(place.job(), "-c", place.cluster, "-s", secrets, *more)
        assert done.returncode == 2, done.stderr
        assert "there is no section [APY] in the secrets" in done.stderr
        assert "did you mean 'API'?" in done.stderr
    assert not (place.folder / "home" / "clusters").exists()
