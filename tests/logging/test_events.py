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

from flambe.logging import capture, events, log, log_image, log_pr_curves, redact
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
