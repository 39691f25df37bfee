"""Overrides, included parts and variables on the command line: run, planned and recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from flambe.cli import main
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.run import Run
from flambe.progress import RunFolder, read_invocations, read_lines, variants_of

CONFIG = """\
says: ./says.py
---
!Experiment
name: shown
pipeline:
  talk: !says.Says
    text: !g [a, b]
    <<: !include parts/talk.yaml
"""
EXTENSION = """
from flambe.compile import Component

class Says(Component):
    def __init__(self, text, metric=1.0, wish=""):
        self.text, self.value, self.wish = text, metric, wish
    def run(self):
        print(f"{self.text} {self.wish}")
        return False
    def metric(self):
        return self.value
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Run, "_default_executor", lambda self, root: InlineExecutor(root))
    (tmp_path / "says.py").write_text(EXTENSION)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "talk.yaml").write_text("metric: !env {name: SHOWN_METRIC, default: 2}\n")
    (tmp_path / "shown.yaml").write_text(CONFIG)
    return tmp_path / "shown.yaml"


def metrics(folder: Path) -> dict[str, float | None]:
    journal = RunFolder(folder / "flambe-output" / "output__shown").variants
    entries = variants_of(read_lines(journal)).values()
    return {str(entry.choices["text"]): entry.metric for entry in entries}


def test_a_run_with_overrides_is_recorded(
    config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOWN_METRIC", "5")
    overrides = ["talk.text=!g [c, d]", "seed=3"]
    assert main(["shown.yaml", overrides[0], "--force", overrides[1]]) == 0
    assert metrics(config.parent) == {"c": 5, "d": 5}
    folder = RunFolder(config.parent / "flambe-output" / "output__shown")
    [invocation] = read_invocations(folder.invocations)
    assert invocation.overrides == overrides
    assert invocation.config == CONFIG
    assert folder.config.read_text() == CONFIG
    assert "text: !g [c, d]" in invocation.resolved
    assert "metric: 5" in invocation.resolved
    assert "!include" not in invocation.resolved
    assert "seed: 3" in invocation.resolved
    capfd.readouterr()


@pytest.mark.parametrize("command", [["validate"], ["plan"], ["--dry-run"]])
def test_overrides_are_planned(
    config: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["shown.yaml", "talk.text=!g [a, b, c, d, e, f, g]"]
    if command == ["--dry-run"]:
        arguments, command = [arguments[0], "--dry-run", arguments[1]], []
    assert main([*command, *arguments]) == 0
    assert " 7 " in capsys.readouterr().out


def test_a_wrong_override_is_shown_at_its_place(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shown.yaml", "talk.metrik=1"]) == 2
    assert not (config.parent / "flambe-output").exists()
    assert capsys.readouterr().err == (
        "error: override 1:1:6: unknown keyword 'metrik' for !says.Says\n"
        "    1 | talk.metrik=1\n"
        "      |      ^^^^^^\n"
        "      = did you mean 'metric'?\n"
    )


def test_a_secret_is_in_no_file_of_a_run(
    config: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOWN_TOKEN", "heron-4711-willow")
    assert main(["shown.yaml", "talk.wish=!env SHOWN_TOKEN", "talk.metric=!g [1, 2]"]) == 0
    output = capfd.readouterr()
    assert "a ***" in output.out + output.err
    files = [path for path in (config.parent / "flambe-output").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if b"heron-4711" in path.read_bytes()] == []
    configs = list((config.parent / "flambe-output").rglob("talk/*/config.yaml"))
    assert all("wish: !env SHOWN_TOKEN" in path.read_text() for path in configs)
