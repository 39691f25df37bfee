"""Where figures and lines go."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambe.logging import (
    capture,
    events,
    log,
    log_histogram,
    log_image,
    log_pr_curve,
    log_pr_curves,
    log_scalar,
    log_text,
    redact,
)
from flambe.logging.events import Record
from flambe.logging.recorder import DirectChannel, Recorder


class Kept:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def send(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None:
        pass


@pytest.fixture
def kept() -> Kept:
    channel = Kept()
    events.use(channel, "v1")
    return channel


@pytest.mark.parametrize(
    ("value", "kind", "stored"),
    [
        (1, "scalar", 1.0),
        (True, "scalar", 1.0),
        (0.5, "scalar", 0.5),
        (np.float32(0.5), "scalar", 0.5),
        (np.array([[0.5]]), "scalar", 0.5),
        (torch.tensor(0.5, requires_grad=True), "scalar", 0.5),
        (torch.tensor(2.0, dtype=torch.bfloat16), "scalar", 2.0),
        ("words", "text", "words"),
        ([1.0, 2.0], "histogram", [1.0, 2.0]),
        (torch.ones(2, 2), "histogram", [1.0] * 4),
    ],
)
def test_values_are_routed_by_their_type(kept: Kept, value: Any, kind: str, stored: Any) -> None:
    events.at_step(7)
    log("tag", value)
    (record,) = kept.records
    assert (record.kind, record.tag, record.step, record.source) == (kind, "tag", 7, "v1")
    assert np.array_equal(record.value, stored) if kind == "histogram" else record.value == stored


def test_mappings_are_several_figures_and_other_things_are_refused(kept: Kept) -> None:
    log("loss", {"train": 1, "val": 2.5}, step=3)
    assert [(r.tag, r.value, r.step) for r in kept.records] == [
        ("loss/train", 1.0, 3),
        ("loss/val", 2.5, 3),
    ]
    with pytest.raises(TypeError, match="cannot log 'x'"):
        log("x", object())
    with pytest.raises(TypeError, match="as an image"):
        log_image("x", np.zeros((5, 5, 5)))


def test_a_script_writes_figures_to_the_file_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "figures"
    monkeypatch.setenv(events.METRICS_FILE, str(file))
    log("accuracy", 0.5, 2)
    assert json.loads(file.read_text()) == {"tag": "accuracy", "value": 0.5, "step": 2}


def test_the_recorder_writes_what_tensorboard_and_people_read(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    redact.add("s3cret-value")
    recorder = Recorder(tmp_path)
    recorder.open("v1", "train/one", "train lr=1")
    events.use(DirectChannel(recorder), "v1")
    log("loss", 0.25, 1)
    log("loss", float("nan"), 2)
    log_image("picture", np.zeros((4, 4)), 1)
    log_pr_curves("pr", [0, 1], np.array([[0.9, 0.1], [0.2, 0.8]]), 1)
    recorder.write([Record("v1", "line", "stdout", "it is s3cret-value", None, 0.0)])
    recorder.close()
    place = tmp_path / "train" / "one"
    figures = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    assert [(f["tag"], f["value"], f["step"]) for f in figures] == [("loss", 0.25, 1),
                                                                   ("loss", "nan", 2)]  # fmt: skip
    assert "it is ***" in (place / "variant.log").read_text()
    assert "train lr=1 | it is ***" in (tmp_path / "run.log").read_text()
    found = EventAccumulator(str(place / "tensorboard"))
    found.Reload()
    assert next(s.value for s in found.Scalars("loss")) == 0.25
    assert found.Tags()["images"] == ["picture"]


def test_all_that_a_process_prints_is_taken(tmp_path: Path) -> None:
    code = """
import os, sys
from flambe.logging.capture import Printed
taken = []
printed = Printed(lambda level, text: taken.append((level, text)))
for turn in range(3):
    printed.start()
    for i in range(10000):
        print(f"{turn} {i}")
    sys.stderr.write("half")
    os.system(f"echo from a program {turn}")
    printed.stop()
lines = [text for level, text in taken if level == "stdout"]
assert sorted(lines) == sorted([f"{t} {i}" for t in range(3) for i in range(10000)]
                               + [f"from a program {t}" for t in range(3)]), len(lines)
assert [text for level, text in taken if level == "stderr"] == ["half"] * 3
print("whole")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "whole\n", result.stderr


def test_lines_that_are_logged_while_one_is_taken_are_not_taken_again() -> None:
    taken: list[str] = []

    def take(level: str, text: str) -> None:
        taken.append(text)
        logging.getLogger("elsewhere").warning("told")

    with capture.printed_here(take):
        print("one")
        logging.getLogger("mine").warning("two")
    assert "one" in taken
    assert "mine: two" in taken
    assert len(taken) <= 4


def test_the_home_is_the_test_s_own(home: Path) -> None:
    assert os.environ["FLAMBE_HOME"] == str(home)


def test_a_step_is_also_called_global_step(kept: Kept) -> None:
    log("loss", 0.5, global_step=3)
    log("loss", {"train": 1.0}, global_step=4)
    log_scalar("lr", torch.tensor([0.25]), global_step=5)
    log_text("words", "hello", global_step=6)
    log_histogram("weights", [1.0, 2.0], global_step=7)
    log_image("picture", np.zeros((4, 4)), global_step=8)
    log_pr_curve("pr", [0, 1], [0.1, 0.9], global_step=9)
    log_pr_curves("prs", [0, 1], [[0.9, 0.1], [0.2, 0.8]], global_step=10)
    found = [(r.kind, r.tag, r.step) for r in kept.records]
    assert found == [
        ("scalar", "loss", 3),
        ("scalar", "loss/train", 4),
        ("scalar", "lr", 5),
        ("text", "words", 6),
        ("histogram", "weights", 7),
        ("image", "picture", 8),
        ("pr_curve", "pr", 9),
        ("pr_curve", "prs/0", 10),
        ("pr_curve", "prs/1", 10),
    ]
    assert kept.records[2].value == 0.25
    log("loss", 0.5, global_step=0)
    assert kept.records[-1].step == 0
    for step in (1, 2):
        with pytest.raises(TypeError, match="step and global_step are the same"):
            log("loss", 0.5, 1, global_step=step)


def test_one_number_or_one_curve_is_expected_by_name(kept: Kept) -> None:
    with pytest.raises(TypeError, match=r"cannot log 'x' as a scalar: a list of shape \(2,\)"):
        log_scalar("x", [1, 2])
    with pytest.raises(TypeError, match="cannot log 'x' as a scalar: a str"):
        log_scalar("x", "text")
    with pytest.raises(TypeError, match="log_pr_curves takes"):
        log_pr_curve("x", [0, 1], [[0.9, 0.1], [0.2, 0.8]])
    assert kept.records == []
