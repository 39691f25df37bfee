"""The process that collects what variants say is killed: nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.experiment.executors.tune.collector import Batch, Collector, Origin
from flambe.logging.events import Record
from flambe.progress import Status, read_lines
from tests.experiment.farm import Going
from tests.experiment.lab import Lab, command, environment, until

pytestmark = pytest.mark.integration

STEPS = 40


def collectors(mark: str) -> set[int]:
    """Return the processes of the collectors whose workers print to files below a folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(
                b"ray::Collector"
            ):
                targets = [os.readlink(link) for link in (entry / "fd").iterdir()]
                if any(target.startswith(mark) for target in targets):
                    found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.faults
@pytest.mark.long
def test_a_collector_that_is_killed_is_started_again(lab: Lab) -> None:
    lab.write(
        f"""
        a: !pieces.Talker {{name: !g [x, y], steps: {STEPS}, seconds: 0.2}}
        b: !pieces.Talker {{name: z, steps: 2}}
        """
    )
    run = Going(command(lab.config), environment(), lab.root)
    run.says(r"printed by x3\b")
    killed: set[int] = set()
    for moment in (r"printed by x8\b", r"printed by y20\b"):
        run.says(moment)
        (pid,) = until(lambda: collectors(str(lab.folder.root)) - killed, "there is a collector")
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    said = run.ends()
    assert "Traceback" not in said
    assert "ActorDied" not in said
    entries = list(lab.folder.read_variants().values())
    assert [entry.status for entry in entries] == [Status.FINISHED] * 3
    for entry in entries:
        place = lab.folder.variant(entry.stage, entry.name)
        steps = STEPS if entry.stage == "a" else 2
        lines = re.findall(
            r"printed by \w(\d+)$", (place / "variant.log").read_text(), re.MULTILINE
        )
        assert lines == [str(number) for number in range(1, steps + 1)]
        known = [line["step"] for line in read_lines(place / "metrics.jsonl")]
        assert sorted(set(known)) == list(range(1, steps + 1))
        assert len(
            {(line["tag"], line["step"]) for line in read_lines(place / "metrics.jsonl")}
        ) == len(known)
    run_log = lab.folder.log.read_text()
    assert len(re.findall(r"printed by x\d+$", run_log, re.MULTILINE)) == STEPS
    assert not (lab.folder.root / ".ledger.json").exists()


def line(text: str, source: str = "v") -> Record:
    return Record(source, "line", "stdout", text, None, 1.0)


def test_what_was_written_is_not_written_twice_and_what_was_not_is(tmp_path: Path) -> None:
    origin = Origin("a/v", "a v")
    first = Collector(str(tmp_path), [], "run")
    batches = [
        Batch(
            "w", n, [line(f"line {n}"), Record("v", "scalar", "f", float(n), n, 1.0)], {"v": origin}
        )
        for n in (1, 2, 3)
    ]
    first.write(batches[0])
    first.write(batches[1])
    # It is killed: half of a batch is written, and nobody was told so.
    log = tmp_path / "a" / "v" / "variant.log"
    with open(log, "a") as stream:
        stream.write("2026-01-01 00:00:00 stdout  line")
    second = Collector(str(tmp_path), [], "run")
    for batch in batches:  # its worker knows of none of them whether they came
        second.write(batch)
    assert re.findall(r"line (\d)", log.read_text()) == ["1", "2", "3"]
    steps = [entry["step"] for entry in read_lines(tmp_path / "a" / "v" / "metrics.jsonl")]
    assert steps == [1, 2, 3]
    assert second.recorder.tail("v")[-1] == ("stdout", "line 3")
    second.close()
    # Another run in the same folder begins anew.
    third = Collector(str(tmp_path), [], "other run")
    third.write(batches[0])
    assert re.findall(r"line (\d)", log.read_text()) == ["1", "2", "3", "1"]


def test_what_an_attempt_says_that_was_given_up_does_not_count(tmp_path: Path) -> None:
    collector = Collector(str(tmp_path), [], "run")
    early, late = Origin("a/v", "a v", 1), Origin("a/v", "a v", 2)
    collector.begin("v", early)
    collector.write(Batch("one", 1, [line("first")], {"v": early}))
    collector.begin("v", late)
    collector.write(Batch("two", 1, [line("second")], {"v": late}))
    collector.write(Batch("one", 2, [line("zombie"), line("of the host", "")], {"v": early}))
    text = (tmp_path / "a" / "v" / "variant.log").read_text()
    assert "first" in text
    assert "second" in text
    assert "zombie" not in text
    run_log = (tmp_path / "run.log").read_text()
    assert "zombie" not in run_log
    assert "of the host" in run_log


def test_what_the_driver_finds_out_is_written(tmp_path: Path) -> None:
    collector = Collector(str(tmp_path), [], "run")
    origin = Origin("a/v", "a v")
    collector.log_error("v", origin, "its process was killed")
    assert collector.last_lines("v", {"stdout": ["the last"]})[-1] == "the last"
    text = (tmp_path / "a" / "v" / "variant.log").read_text()
    assert "its process was killed" in text
    assert "the last" in text


WRITE = """
import sys
import numpy
from flambe.experiment.executors.tune.collector import Batch, Collector, Origin
from flambe.logging.events import Record
origin = Origin("a/v", "a v")
collector = Collector(sys.argv[1], [], "run")
def write(number, kind, value):
    collector.write(Batch("w", number, [Record("v", kind, kind, value, number, 1.0)], {"v": origin}))
write(1, "scalar", 0.5)
write(2, "histogram", numpy.ones(3))
print("torch" in sys.modules)
import torch
write(3, "histogram", torch.ones(3))
write(4, "image", torch.ones(1, 3, 3))
collector.close()
"""


def test_the_process_of_the_logs_loads_no_torch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pytest.importorskip("torch")
    written = [sys.executable, "-c", WRITE, str(tmp_path)]
    assert subprocess.run(written, check=True, capture_output=True, text=True).stdout == "False\n"
    events = EventAccumulator(str(next(tmp_path.glob("a/v/tensorboard"))), {"histograms": 0})
    events.Reload()
    assert [event.step for event in events.Histograms("histogram")] == [2, 3]
    assert [event.step for event in events.Images("image")] == [4]
