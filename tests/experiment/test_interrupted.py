"""A run that is cut off, in a process of its own, and what a resumed one makes of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.progress import RunFolder, Status, VariantState
from tests.cli import inline
from tests.experiment.lab import (
    Lab,
    command,
    environment,
    flambe,
    kill_all,
    processes_with,
    until,
)
from tests.raw import OUTPUTS

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray"), pytest.mark.faults]

STEPS = 8
PIPELINE = """
train: !pieces.Walk
  steps: 8
  rate: !g [1.0, 2.0, 3.0, 4.0]
  delay: DELAY
  record: RECORD
next: !pieces.Walk {steps: 1, start: !@ train, label: next, record: RECORD}
"""


class Started:
    """A ``flambe`` that runs, in a session of its own; all that it starts carries a mark."""

    def __init__(self, lab: Lab, *arguments: str) -> None:
        self.mark = f"FLAMBE_TEST_MARK={lab.root}"
        name, value = self.mark.split("=", 1)
        self.output = open(lab.root / "output.txt", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            command(lab.config, *arguments),
            env=environment(**{name: value}),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        OUTPUTS.note("flambe", (lab.root / "output.txt").read_text)

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def nothing_left(self) -> None:
        until(
            lambda: not processes_with(self.mark),
            f"no process is left, but {processes_with(self.mark)}",
        )

    def end(self) -> None:
        kill_all(self.mark)
        self.process.wait(30)
        self.output.close()


@pytest.fixture
def start(lab: Lab) -> Iterator[Any]:
    runs: list[Started] = []

    def begin(*arguments: str) -> Started:
        runs.append(Started(lab, *arguments))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def metrics_lines(folder: RunFolder) -> int:
    return sum(
        len(path.read_bytes().splitlines()) for path in folder.root.glob("train/*/metrics.jsonl")
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float | None]:
    """Return the metric of each variant of a run that nothing interrupts."""
    lab = Lab(tmp_path_factory.mktemp("expected"))
    outcome = lab.run(PIPELINE.replace("DELAY", "0.0"), seed=3).fine()
    return {
        f"{v.stage} {v.choices.get('rate')}": v.metric
        for stage in ("train", "next")
        for v in outcome.of(stage)
    }


def check_result(lab: Lab, expected: dict[str, float | None]) -> list[VariantState]:
    variants = list(lab.folder.read_variants().values())
    found = {f"{v.stage} {v.choices.get('rate')}": v.metric for v in variants}
    assert found == expected
    state = lab.folder.read_state()
    assert state is not None
    assert state.status is Status.FINISHED
    for variant in variants:
        assert variant.status in (Status.FINISHED, Status.REUSED)
        folder = lab.folder.variant(variant.stage, variant.name)
        assert [n for n in os.listdir(folder) if n.startswith("checkpoint")] == ["checkpoint"]
    return [variant for variant in variants if variant.stage == "train"]


def steps_of(records: list[str], label: str) -> list[int]:
    return [int(r.split()[2]) for r in records if r.startswith(f"step {label} ")]


def prepare(lab: Lab, delay: float = 0.15) -> None:
    lab.write(PIPELINE.replace("DELAY", str(delay)), seed=3)


def two_are_done_and_more_are_under_way(lab: Lab) -> bool:
    finished = [v for v in lab.folder.read_variants().values() if v.status.done]
    return len(finished) >= 2 and metrics_lines(lab.folder) >= 2 * STEPS * 2 + 6


def check_resumed(lab: Lab, before: list[str], finished: set[str]) -> None:
    """What was done was not done again; the others went on from where they were."""
    after = lab.records()[len(before) :]
    for label in ("1", "2", "3", "4"):
        done, again = steps_of(before, label), steps_of(after, label)
        if label in finished:
            assert again == [], f"variant {label} was finished and ran again"
            continue
        assert again[-1] == STEPS
        assert again == list(range(again[0], STEPS + 1))
        # At most the step under way and the one whose checkpoint was being written are lost.
        assert again[0] >= max(done, default=0) - 1, "the checkpoint was not used"


@pytest.mark.long
def test_a_driver_that_is_killed(lab: Lab, start: Any, expected: dict[str, float | None]) -> None:
    prepare(lab)
    run = start()
    until(lambda: two_are_done_and_more_are_under_way(lab), f"two variants done: {run.said()}")
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(30)
    run.nothing_left()
    before = lab.records()
    state = lab.folder.read_state()
    assert state is not None
    assert state.status is Status.RUNNING
    finished = {
        f"{v.choices['rate']:g}" for v in lab.folder.read_variants().values() if v.status.done
    }
    assert len(finished) >= 2
    spoil(lab)
    done = flambe(lab.config, "--resume")
    assert done.returncode == 0, done.stderr
    train = check_result(lab, expected)
    assert sorted(os.listdir(lab.folder.root / "train")) == sorted(v.name for v in train)
    assert sum(v.status is Status.REUSED for v in train) == len(finished)
    check_resumed(lab, before, finished)


def spoil(lab: Lab) -> None:
    """Leave what a machine that lost its power leaves: files that were half written."""
    folder = lab.folder
    folder.state.write_bytes(folder.state.read_bytes()[:100])
    with open(folder.variants, "a", encoding="utf-8") as stream:
        stream.write('{"id": "0123456789ab", "stage": "tra')
    for place in filter(Path.is_dir, (folder.root / "train").iterdir()):
        whole = sorted(p for p in place.iterdir() if p.name.startswith("checkpoint"))
        if whole:
            # A checkpoint whose state was cut off, and one that has no manifest yet.
            broken = place / "checkpoint_000777"
            shutil.copytree(whole[-1], broken)
            manifest = json.loads((broken / "manifest.json").read_text())
            (broken / "manifest.json").write_text(json.dumps({**manifest, "step": 777}))
            (file,) = (broken / "checkpoint.flambe").glob("state.pt")
            file.write_bytes(file.read_bytes()[:-10])
            (place / "checkpoint_000778" / "checkpoint.flambe").mkdir(parents=True)
            (place / "checkpoint_000778" / "manifest.json").write_text('{"step": 77')
        with open(place / "metrics.jsonl", "a", encoding="utf-8") as stream:
            stream.write('{"time": 1, "st')


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    "everyone",
    [pytest.param(False, marks=pytest.mark.long, id="driver"), pytest.param(True, id="group")],
)
def test_a_run_that_is_interrupted(
    lab: Lab,
    start: Any,
    expected: dict[str, float | None],
    number: signal.Signals,
    everyone: bool,
) -> None:
    """Ctrl-C of a terminal reaches every process of the group, a kill only one."""
    prepare(lab)
    run = start()
    until(lambda: two_are_done_and_more_are_under_way(lab), f"two variants done: {run.said()}")
    if everyone:
        os.killpg(run.process.pid, number)
    else:
        os.kill(run.process.pid, number)
    assert run.process.wait(60) == 130
    said = run.said()
    assert "--resume" in said
    assert "interrupted" in said
    assert "Traceback" not in said
    run.nothing_left()
    state = lab.folder.read_state()
    assert state is not None
    assert state.status is Status.INTERRUPTED
    assert state.ended is not None
    assert state.stage("train").status is Status.INTERRUPTED
    # Its variants start as soon as their own ancestors are done: perhaps one had.
    assert state.stage("next").status in (Status.WAITING, Status.INTERRUPTED)
    statuses = [v.status for v in lab.folder.read_variants().values()]
    assert Status.RUNNING not in statuses
    assert Status.INTERRUPTED in statuses
    assert Status.FAILED not in statuses
    if everyone or number is signal.SIGTERM:
        return  # one that is resumed is enough
    before = lab.records()
    finished = {
        f"{v.choices['rate']:g}" for v in lab.folder.read_variants().values() if v.status.done
    }
    done = flambe(lab.config, "--resume")
    assert done.returncode == 0, done.stderr
    check_result(lab, expected)
    check_resumed(lab, before, finished)


def test_an_interruption_before_the_first_variant(lab: Lab, start: Any) -> None:
    prepare(lab)
    run = start()
    until(lambda: "starting Ray" in run.said(), "Ray is being started")
    os.kill(run.process.pid, signal.SIGINT)
    assert run.process.wait(60) == 130
    assert "Traceback" not in run.said()
    run.nothing_left()


SLOW = """
import os, signal
lost = False
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    lost = True
"""
IMPORTS = """
import sys, time
from flambe.experiment.signals import Interruption
try:
    with Interruption():
        import slow
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(3 if slow.lost else 0)
sys.exit(4)
"""


def test_an_interruption_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    """Modules that are not Python print what is raised while they are loaded, and go on."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, cwd=tmp_path, timeout=50, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_second_run_waits_for_nobody(lab: Lab) -> None:
    """After a run has ended nothing of it is left in the way of the next.

    Without Ray; test_a_disk_that_stays_full_ends_the_run_in_order runs twice with it.
    """
    lab.write("train: !pieces.Walk {steps: 1}")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", inline.COMMAND, str(lab.config), *options]
        return subprocess.run(
            command, env=environment(), timeout=180, capture_output=True, text=True, check=False
        )

    first = run()
    assert first.returncode == 0, first.stderr
    refused = run()
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    again = run("--force")
    assert again.returncode == 0, again.stderr


@pytest.mark.long
def test_a_run_whose_ray_is_killed_is_interrupted(
    lab: Lab, start: Any, expected: dict[str, float | None]
) -> None:
    """No variant failed, whatever ended Ray: the next run continues them."""
    lab.write(PIPELINE.replace("DELAY", "0.3"), more="max_failures: 0", seed=3)
    run = start()
    until(lambda: metrics_lines(lab.folder) >= 4, "some steps are done")
    raylets = [p for p, line in processes_with(run.mark).items() if "raylet/raylet" in line]
    assert len(raylets) == 1
    os.kill(raylets[0], signal.SIGKILL)
    until(lambda: run.process.poll() is not None, "it ends", 150)
    said = run.said()
    assert "error: Ray on this machine ended" in said, said[-1500:]
    assert Status.FAILED not in {v.status for v in lab.folder.read_variants().values()}
    run.nothing_left()
    done = flambe(lab.config, "--resume")
    assert done.returncode == 0, done.stderr
    assert "failed before" not in done.stdout + done.stderr
    check_result(lab, expected)
