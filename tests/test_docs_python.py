"""The Python of docs/notebook.md and of docs/testing.md runs as it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.run import Run

ROOT = Path(__file__).parent.parent
QUICK = {"max_steps: 8": "max_steps: 2", "lr: !g [0.001, 0.003, 0.01]": "lr: !g [0.003, 0.01]"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the demo, smaller, in which experiments are run without Ray."""
    text = (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8")
    for written, quick in {**QUICK, "[16, 32, 64, 128]": "[16, 128]"}.items():
        assert written in text
        text = text.replace(written, quick)
    (tmp_path / "digits.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "_default_executor", lambda self, root: InlineExecutor(root))
    return tmp_path


def blocks(page: str) -> Iterator[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    yield from re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.integration
def test_the_page_about_notebooks(folder: Path) -> None:
    pytest.importorskip("torch")
    names: dict[str, Any] = {}
    for block in blocks("notebook.md"):
        exec(compile(block, "notebook.md", "exec"), names)
    assert names["best"].metric > 0.8
    assert len(names["table"]) == 4
    assert names["run"].best().stage == "evaluate"
    assert (folder / "variants.csv").read_text(encoding="utf-8").startswith("stage,variant,")
    assert names["past"].name == "digits"
    assert names["made"].last_run.status == "finished"


@pytest.mark.integration
def test_the_page_about_tests(folder: Path) -> None:
    pytest.importorskip("torch")
    names: dict[str, Any] = {}
    exec(compile(next(blocks("testing.md")), "testing.md", "exec"), names)
    names["test_it_halves"]()
    names["test_our_experiment_learns"](folder / "results")


@pytest.mark.integration
def test_the_example_of_a_script(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    text = (ROOT / "examples" / "digits.py").read_text(encoding="utf-8")
    script = folder / "script.py"
    exec(compile(text, str(script), "exec"), {"__file__": str(script), "__name__": "__main__"})
    assert "output_size" in (output := capsys.readouterr().out)
    assert " parameters\n" in output
    assert (folder / "flambe-output" / "output__digits-from-python" / "state.json").is_file()
