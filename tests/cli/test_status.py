"""How a run stands: the same wherever it is shown, with the command that comes next."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flambe.cli import main, status
from flambe.cli.hosts_table import hosts_table
from flambe.cli.terminal import TextConsole
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.local_state import ClusterFiles
from flambe.cluster.machine import Machine
from flambe.errors import ConfigError
from flambe.experiment.devices import refuse_too_large
from flambe.progress import RunState, StageState, Status
from flambe.remote import Address
from flambe.remote.agent.protocol import HostReport
from flambe.report.store import Store
from tests.cluster.place import Place, local, typed
from tests.experiment.lab import until
from tests.report.written import Written

pytestmark = pytest.mark.integration

COMMAND = "flambe x.yaml --cluster lab.yaml"
ABOUT = {"user": "ann", "host": "laptop", "command": COMMAND}
LOST = {"state": "lost", "started": 1.0, "started_ago": 9.0, "about": ABOUT}
RUNNING = {**LOST, "state": "running"}
ENDED = {**LOST, "state": "ended", "ended": 5.0, "ended_ago": 65.0}


def host(run: dict[str, Any] | None, **marks: Any) -> ClusterHost:
    address = Address("h")
    made = ClusterHost(
        Machine("orchestrator", address, address, "u"), ClusterFiles("lab"), ".flambe"
    )
    made.report = HostReport.from_json({"runs": {"lab": run} if run else {}, "marks": marks})
    return made


def experiment(state: Status) -> RunState:
    counts = {"finished": 3, "running": 2} if state is Status.RUNNING else {"finished": 3}
    return RunState("x", status=state, stages=[StageState("a", total=12, counts=counts)])


@pytest.mark.parametrize(
    ("run", "state", "lines"),
    [
        (None, None, ["nothing was run on it yet"]),
        (
            RUNNING,
            Status.RUNNING,
            [
                f"running for 9.0 s, started by ann on laptop: {COMMAND}",
                "x: running, 3 of 12 variants done",
                "  to follow it:   flambe logs lab -f",
            ],
        ),
        (
            LOST,
            Status.RUNNING,
            [
                f"the last run was {status.INTERRUPTED}: {COMMAND}",
                "x: interrupted, 3 of 12 variants done",
                f"  to continue:   {COMMAND} --resume",
            ],
        ),
        (
            {**ENDED, "code": 137},
            Status.INTERRUPTED,
            [
                "the last run was interrupted 1 min 05 s ago: it was killed (exit code 137): "
                + COMMAND,
                "x: interrupted, 3 of 12 variants done",
                f"  to continue:   {COMMAND} --resume",
            ],
        ),
        (
            {**ENDED, "code": 0},
            Status.FINISHED,
            [
                f"the last run ended 1 min 05 s ago with exit code 0: {COMMAND}",
                "x: finished, 3 of 12 variants done",
            ],
        ),
    ],
)
def test_lines_of_a_run(run: Any, state: Status | None, lines: list[str]) -> None:
    assert status.run_lines("lab", host(run), experiment(state) if state else None) == lines


def test_who_stopped_a_run_is_known_whatever_clocks_say() -> None:
    ended = {**ENDED, "code": 130, "started": 5000.0}
    by = {"user": "bob", "host": "desk", "command": "flambe stop lab", "at": 10.0}
    assert (
        "by bob on desk"
        in status.run_lines("lab", host(ended, stopped={**by, "run": 5000.0}), None)[0]
    )
    for other in ({**by, "run": 4.0}, by, {**by, "at": 9999.0, "run": 4.0}):
        assert "bob" not in status.run_lines("lab", host(ended, stopped=other), None)[0]


def test_the_command_that_continues() -> None:
    assert status.resuming("flambe x.yaml --force") == "flambe x.yaml --resume"
    assert status.resuming("flambe x --resume-from a") == "flambe x --resume-from a"
    assert status.resuming("flambe 'a b.yaml' --resume") == "flambe 'a b.yaml' --resume"


def test_a_node_is_told_from_its_host() -> None:
    node = {"state": "running", "about": {"name": "factory_2"}, "restarts": 4}

    def shown(report: bool, nodes: dict[str, str] | None) -> str:
        address = Address("h")
        made = ClusterHost(
            Machine("factory_2", address, address, "u"), ClusterFiles("lab"), ".flambe"
        )
        if report:
            facts = {"cpus": 2, "gpus": [], "memory": 1, "python": "3.12.1", "home": "/home/u"}
            made.report = HostReport.from_json({"runs": {"lab.ray": node}, "facts": facts})
        stream = io.StringIO()
        console = TextConsole(file=stream, width=200)
        console.print(hosts_table("lab", [made], width=200, ray_nodes=nodes))
        return stream.getvalue().splitlines()[1]

    assert shown(True, {"factory_2": "h"}).split()[-2:] == ["joined", "ready"]
    assert "not joined, 4 restarts" in shown(True, {})
    assert "not known" in shown(True, None)
    # From here it is not reached, and yet Ray has it.
    assert shown(False, {"factory_2": "h"}).split()[-2:] == ["joined", "unreachable"]
    node["about"] = {"name": "factory_3"}
    assert "as factory_3" in shown(True, {"factory_3": "h"})


def test_a_killed_run_is_interrupted_in_results_and_on_the_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = Written(tmp_path / "output__trial", pid=gone.pid)
    run.add("a")
    run.journal.write()
    store = Store(run.folder.root)
    store.refresh(now=True)
    assert store.status == "interrupted"
    assert main(["results", str(run.folder.root)]) == 0
    text = capsys.readouterr().out
    assert "trial interrupted in" in text
    assert "run the same command with --resume" in text
    assert "running" not in text


def test_a_run_whose_supervisor_is_killed(tmp_path: Path) -> None:
    with local(tmp_path, "killed") as place:
        _kill_supervisor(place)
        seen = place.flambe("status", "killed").stdout
        assert f"the last run was {status.INTERRUPTED}: " in seen
        assert "job.yaml --cluster" in seen
        assert "flambe down" not in seen
        followed = place.flambe("logs", "killed", "-f")
        assert followed.returncode == 1
        assert f"the run was {status.INTERRUPTED}" in followed.stderr
        assert "--resume" in followed.stderr


def _kill_supervisor(place: Place) -> None:
    started = place.flambe(place.job(steps=1000), "--cluster", place.cluster, "--detach")
    assert started.returncode == 0, started.stderr
    (path,) = place.folder.rglob("runs/killed/status.json")
    pid = json.loads(path.read_text())["supervisor"][0]
    os.kill(pid, signal.SIGKILL)

    def gone() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return False
        return True

    until(gone, "its supervisor is gone", 60)


# -- shapes of clusters that no experiment can run on ---------------------------------------------


@pytest.mark.parametrize(
    ("command", "cluster"),
    [
        ([], "!LocalCluster {factories_num: 0,"),
        (["plan"], "!SSHCluster {orchestrator_ip: nowhere.invalid,"),
    ],
)
def test_a_cluster_without_factories_is_refused_before_anything(
    tmp_path: Path, command: list[str], cluster: str
) -> None:
    file, described = tmp_path / "x.yaml", tmp_path / "zero.yaml"
    file.write_text("!Experiment\nname: x\npipeline:\n  a: !SklearnDataset {name: digits}\n")
    described.write_text(f"{cluster} name: zero}}\n")
    done = typed(tmp_path, *command, file, "--cluster", described)
    assert done.returncode == 2
    assert "the cluster 'zero' has no factories" in done.stderr
    assert "orchestrator_works: true" in done.stderr
    assert not (tmp_path / "home/clusters/zero").exists()


def test_devices_that_no_single_host_has() -> None:
    hosts = {"factory_1": {"cpu": 8.0, "gpu": 0.0}, "factory_2": {"cpu": 2.0, "gpu": 2.0}}
    for fits in (None, {"cpu": 8}, {"cpu": 2, "gpu": 2}, {"gpu": 0.5}, {"TPU": 3}):
        refuse_too_large(fits, hosts)
    refuse_too_large({"cpu": 99}, {})  # nothing is known of them
    with pytest.raises(ConfigError) as raised:
        refuse_too_large({"cpu": 4, "gpu": 1}, hosts)
    assert "a variant needs 4 cpu and 1 gpu, and no host has that" in str(raised.value)
    assert "factory_1 has 8 cpu, 0 gpu, factory_2 has 2 cpu, 2 gpu" in str(raised.value)


@pytest.mark.parametrize("name", ["a" * 64, ".".join(["abc"] * 70)])
def test_names_of_hosts_that_no_resolver_takes(name: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Address.parse(name)
    Address.parse("a" * 63 + ".example.com")
