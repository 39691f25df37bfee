"""The files of a run, written as records come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flambe.logging import events, log, log_histogram, log_image, log_text
from flambe.logging.events import Record
from flambe.logging.recorder import DirectChannel, Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    made = Recorder(tmp_path)
    made.open("v1", "train/one", "train lr=1")
    events.use(DirectChannel(made), "v1")
    return made


def figures(folder: Path) -> list[tuple[str, Any, int | None]]:
    text = (folder / "train" / "one" / "metrics.jsonl").read_text()
    return [(f["tag"], f["value"], f["step"]) for f in map(json.loads, text.splitlines())]


@pytest.mark.parametrize(
    "values", [[], [float("nan")] * 3, [1.0, float("inf")]], ids=["empty", "nan", "inf"]
)
def test_one_odd_figure_does_not_cost_the_others(
    recorder: Recorder, tmp_path: Path, values: list[float]
) -> None:
    log("before", 1)
    log_histogram("odd", values)
    log("after", 2)
    recorder.close()
    assert [tag for tag, _, _ in figures(tmp_path)] == ["before", "after"]


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5), (4, 5, 3), (4, 5, 1)])
def test_images_of_all_shapes(recorder: Recorder, tmp_path: Path, shape: tuple[int, ...]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for kind, high in ((np.float32, 1.0), (np.uint8, 255)):
        log_image(f"image {kind.__name__}", np.full(shape, high, dtype=kind), 3)
    recorder.close()
    found = EventAccumulator(str(tmp_path / "train" / "one" / "tensorboard"))
    found.Reload()
    for tag in found.Tags()["images"]:
        (image,) = found.Images(tag)
        assert (image.height, image.width, image.step) == (4, 5, 3)
    assert len(found.Tags()["images"]) == 2


def test_figures_that_are_not_finite_are_strict_json(recorder: Recorder, tmp_path: Path) -> None:
    for value in (float("nan"), float("inf"), float("-inf")):
        log("x", value, 1)
    recorder.close()
    assert [value for _, value, _ in figures(tmp_path)] == ["nan", "inf", "-inf"]


def test_a_line_that_was_cut_off_costs_itself_only(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "one"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"tag": "half", "val')
    (tmp_path / "run.log").write_text("half a li")
    recorder = Recorder(tmp_path)
    recorder.open("v1", "train/one", "train")
    recorder.write([Record("v1", "scalar", "x", 1.0, 1, 0.0)])
    recorder.write([Record("v1", "line", "stdout", "said", None, 0.0)])
    recorder.close()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == '{"tag": "half", "val'
    assert json.loads(lines[1])["tag"] == "x"
    assert (tmp_path / "run.log").read_text().splitlines()[0] == "half a li"


def test_a_source_goes_on_after_its_end(recorder: Recorder, tmp_path: Path) -> None:
    for step in (1, 2):
        log("x", step, step)
        recorder.write([Record("v1", "end", "", None, None, 0.0)])
    recorder.close()
    assert figures(tmp_path) == [("x", 1.0, 1), ("x", 2.0, 2)]


def test_lines_of_nobody_are_of_the_run(recorder: Recorder, tmp_path: Path) -> None:
    recorder.write([Record("", "line", "INFO", "about all", None, 0.0)])
    recorder.write([Record("v1", "line", "INFO", "ünïcode ✓", None, 0.0)])
    assert recorder.take_lines() == [("", "INFO", "about all"), ("v1", "INFO", "ünïcode ✓")]
    assert recorder.take_lines() == []
    recorder.close()
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "INFO    about all\n" in text
    assert "INFO    train lr=1 | ünïcode ✓\n" in text


def test_text_is_a_figure_too(recorder: Recorder, tmp_path: Path) -> None:
    log_text("words", "some", 4)
    recorder.close()
    assert figures(tmp_path) == [("words", "some", 4)]
