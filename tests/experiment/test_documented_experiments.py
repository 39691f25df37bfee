"""The examples of docs/experiments.md: planned and run, each in the experiment that it begins with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flambe.cli.main import main
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.run import Run
from tests.experiment.documented import DOCS, blocks, combine

PAGE = (DOCS / "experiments.md").read_text(encoding="utf-8")
COMPLETE, *PARTS = blocks(PAGE)
# An example begins so → what it is about, and how many variants of that stage there are.
EXAMPLES = {
    "seeds: 5": ("train", 30),
    "seeds: [0": ("train", 18),
    "max_parallel": ("train", 6),
    "reduce": ("evaluate", 6),  # those that are masked too
    "resources": ("dataset", 1),
}

pytestmark = [pytest.mark.torch]


def part(start: str) -> str:
    (example,) = [example for example in PARTS if example.startswith(start)]
    return example


def test_there_are_examples() -> None:
    assert len(PARTS) == len(EXAMPLES)
    assert all(part(start) for start in EXAMPLES)


@pytest.mark.parametrize("start", EXAMPLES)
def test_an_example_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str
) -> None:
    stage, count = EXAMPLES[start]
    texts = [COMPLETE, part(start)]
    if start == "resources":
        # A dataset of a file has no number of features to link to.
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "reviews.csv").write_text("text,label\ngood,1\nbad,0\n")
        texts = ["!Experiment\nname: reviews\n", part(start)]
    path = tmp_path / "digits.yaml"
    path.write_text(combine(*texts), encoding="utf-8")
    assert main(["plan", str(path), "--json"]) == 0
    stages = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["stages"]}
    assert stages[stage]["variants"] == count


def test_the_experiment_is_run_and_says_why_a_variant_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "_default_executor", lambda self, path: InlineExecutor(path))
    path = tmp_path / "digits.yaml"
    path.write_text(COMPLETE.replace("0.003, 0.01, 0.03", "0.003"), encoding="utf-8")
    assert main([str(path), "model.encoder.output_size=16"]) == 0
    capsys.readouterr()
    path.write_text(COMPLETE.replace("0.003, 0.01, 0.03", "0.003, 0.3"), encoding="utf-8")
    assert main([str(path), "model.encoder.output_size=16", "--resume"]) == 0
    output = capsys.readouterr()
    assert "train: 1 variant is run: new value lr=0.3" in output.out + output.err
    assert "train: 1 variant is run: new value lr=0.3" in PAGE
