"""The examples of docs/command-line.md on working with runs, run in a folder with such runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from flambe.cli import main
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.run import Run

DOCS = Path(__file__).parents[2] / "docs"
CODE = """
from flambe.compile import Component


class Net(Component):
    def __init__(self, lr=0.1, size=64, other=None):
        self.lr, self.size = lr, size

    def run(self):
        return False

    def metric(self):
        if self.lr > 0.05:
            raise ValueError("it diverged")
        return 1 - self.lr / self.size
"""
CONFIG = """
documented_nets: ./documented_nets.py
---
!Experiment
name: {name}
stop_on_failure: false
pipeline:
  train: !documented_nets.Net {{lr: !g {rates}, size: !g [64, 128]}}
  evaluate: !documented_nets.Net {{other: !@ train, lr: 0.01}}
reduce: {{train: 1}}
"""


def commands() -> list[str]:
    text = (DOCS / "command-line.md").read_text()
    return re.findall(r"^\$ flambe (.+)$", text[text.index("## Work with runs") :], re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documented")
    (root / "documented_nets.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        patch.setattr(Run, "_default_executor", lambda self, path: InlineExecutor(path))
        for name, rates in (("probe", "[0.01, 0.1]"), ("digits", "[0.001, 0.01]")):
            (root / f"{name}.yaml").write_text(CONFIG.format(name=name, rates=rates))
            assert main([f"{name}.yaml"]) == (name == "probe")
    return root


@pytest.mark.parametrize("line", commands())
def test_examples(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(Run, "_default_executor", lambda self, path: InlineExecutor(path))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "y")
    command, _, target = line.partition(" > ")
    assert main(shlex.split(command)) == 0
    output = capsys.readouterr()
    if target:
        assert output.out.startswith("stage,variant,lr,size,metric,best")
        (folder / target).write_text(output.out)
    for name in re.findall(r"\S+\.(?:csv|parquet)", line):
        assert (folder / name).stat().st_size > 100
    first = {
        "ls": "all" if "--stale" in line else "name",
        "show": "train",
        "compare": "",
        "clean": "stage",
    }
    if (start := first.get(line.split(maxsplit=1)[0])) is not None:
        assert output.out.split("\n")[0].split()[:1] == ([start] if start else ["digits"])
    if line.startswith("rerun"):
        assert (folder / "flambe-output" / "output__digits-rerun" / "state.json").exists()


def test_there_are_examples_of_each_command() -> None:
    names = {line.split()[0] for line in commands()}
    assert names == {"ls", "show", "compare", "export", "rerun", "clean"}
