"""The examples of docs/command-line.md and docs/configuration.md, as they are printed there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from flambe.cli import main
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file, read_text

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def commands() -> list[str]:
    text = (DOCS / "command-line.md").read_text()
    section = text[text.index("## Change a configuration") : text.index("## Work with runs")]
    return re.findall(r"^\$ flambe (.+)$", section, re.MULTILINE)


def blocks(title: str) -> list[str]:
    section = (DOCS / "configuration.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(commands()) == 4


@pytest.mark.torch
@pytest.mark.parametrize("line", commands())
def test_overrides(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in shlex.split(line) if word not in ("validate", "plan", "--resume")]
    words[0] = str(ROOT / words[0])
    monkeypatch.chdir(tmp_path)
    wrong = "words.txt" in line  # there is no such file beside the example
    assert main(["validate", *words]) == (2 if wrong else 0)
    output = capsys.readouterr()
    assert ("resource 'words'" in output.err) == wrong


def test_the_mistake_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "examples/digits.yaml")
    assert main(["validate", config, "seed=1", "train.max_stepz=5"]) == 2
    assert capsys.readouterr().err.strip() in (DOCS / "command-line.md").read_text()


def test_included_parts(tmp_path: Path) -> None:
    files = blocks("Include a part of a file")
    assert len(files) == 3
    for text in files:
        path = tmp_path / text.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    document = read_file(tmp_path / "digits.yaml")
    check(document)
    document.raise_problems()
    train = document.root.kwargs["pipeline"]["train"]
    assert train.kwargs["max_steps"] == 5
    assert train.kwargs["optimizer"].kwargs["lr"] == 0.01


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("SEED", raising=False)
    [text] = blocks("Environment variables")
    assert read_text(text).root == {"save_path": "/scratch", "seed": 0}
