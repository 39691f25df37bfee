"""The examples of docs/search.md, each in the experiment of examples/digits.yaml."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from flambe import Experiment, load_config
from flambe.cli.main import main
from flambe.experiment.search import engine_packages
from tests.experiment.documented import DOCS, blocks, combine

ROOT = Path(__file__).parents[2]
PAGE = (DOCS / "search.md").read_text(encoding="utf-8")
EXAMPLES = blocks(PAGE)
SEARCHED = [20, 10, 10, 8, 10]  # variants of "train" for each model
BASE = """
pipeline:
  model: !Classifier {encoder: !MLPEncoder {output_size: 16}}
  train: !Trainer {optimizer: !torch.Adam {lr: !tune.uniform [0.001, 0.01]}}
search:
  train:
    num_samples: 10
"""

pytestmark = [pytest.mark.torch]


def write(path: Path, example: str) -> Path:
    """Write the experiment with an example in it; what it searches is the stage ``train``."""
    if example.startswith("optimizer:"):
        example = f"pipeline:\n  train: !Trainer\n{textwrap.indent(example, '    ')}"
    digits = (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8")
    path.write_text(combine(digits, BASE, example), encoding="utf-8")
    return path


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == len(SEARCHED)
    assert sum("!ray.OptunaSearch" in example for example in EXAMPLES) == 1


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    pytest.importorskip("optuna")
    path = write(tmp_path / "digits.yaml", EXAMPLES[number])
    assert main(["plan", str(path), "--json"]) == 0
    stages = {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["train"]["variants"] == SEARCHED[number]


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_ray: None, number: int
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "digits.yaml", EXAMPLES[number])
    overrides = {"train.max_steps": 5, "train.iter_per_step": 5, "search.train.num_samples": 4}
    experiment = load_config(path, overrides=overrides)
    assert isinstance(experiment, Experiment)
    variants = experiment.run().variants
    states = list(variants[variants["stage"] == "train"]["state"])
    assert len(states) == 4
    assert set(states) <= {"finished", "stopped"}


def test_the_message_on_a_package_is_printed_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_packages, "_version", lambda name: "")
    path = write(tmp_path / "digits.yaml", "search: {train: !ray.HyperOptSearch }")
    assert main(["validate", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].rpartition("search: ")[2] in PAGE
    (hint,) = [line for line in lines if line.strip().startswith("= pip install")]
    assert hint.strip() in PAGE
