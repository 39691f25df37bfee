"""The examples of docs/search.md, each in the experiment of examples/digits.yaml."""

from __future__ import annotations

import io
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from flambe import Experiment, load_config
from flambe.cli.main import main
from flambe.experiment.search import engine_packages

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SEARCHED = [20, 10, 10, 8, 10]  # variants of "train" for each model

pytestmark = [pytest.mark.torch]


def merged(base: Any, example: Any) -> Any:
    """Return an example in place of what the experiment has there."""
    if not (isinstance(base, CommentedMap) and isinstance(example, CommentedMap)):
        return example
    if example.tag.value not in (None, base.tag.value):
        return example
    for key, value in example.items():
        base[key] = merged(base[key], value) if key in base else value
    return base


def write(path: Path, example: str) -> Path:
    """Write the experiment with an example in it; what it searches is the stage ``train``."""
    yaml = YAML()
    experiment = yaml.load((ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8"))
    part = yaml.load(example)
    if not {"pipeline", "search", "schedulers", "stop"} & set(part):
        part = yaml.load(f"pipeline:\n  train: !Trainer\n{textwrap.indent(example, '    ')}")
    experiment["pipeline"]["model"]["encoder"]["output_size"] = 16
    rate = "train: !Trainer {optimizer: !torch.Adam {lr: !tune.uniform [0.001, 0.01]}}"
    searched = yaml.load(f"pipeline: {{{rate}}}\nsearch:\n  train:\n    num_samples: 10")
    experiment = merged(merged(experiment, searched), part)
    stream = io.StringIO()
    yaml.dump(experiment, stream)
    path.write_text(stream.getvalue(), encoding="utf-8")
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
