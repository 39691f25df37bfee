"""``flambe rerun``: the same configuration, and a warning where the code is not the same."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flambe.cli import main
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.run import Run
from flambe.progress import RunFolder, RunRecord, Status, read_invocations

CODE = '''
from flambe.compile import Component


class Net(Component):
    """A component."""

    def __init__(self, rate=1.0, path=None):
        self.rate = rate

    def run(self):
        return False

    def metric(self):
        return 1 * self.rate
'''
CONFIG = """
nets_{number}: ./nets_{number}.py
---
!Experiment
name: first
pipeline:
  train: !nets_{number}.Net
    rate: !g [1.0, 2.0]  # as in the paper
"""
Call = Callable[..., tuple[int, str, str]]
numbers = itertools.count()  # modules of another test are loaded already


class Project:
    """A folder with a repository, a configuration and code, in which a run was made."""

    def __init__(self, root: Path) -> None:
        number = next(numbers)
        self.root = root
        self.code = root / f"nets_{number}.py"
        self.config = root / "first.yaml"
        self.code.write_text(CODE)
        self.config.write_text(CONFIG.format(number=number))
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-qm", "first")

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, "-C", str(self.root), *arguments], check=True)

    def folder(self, name: str) -> RunFolder:
        return RunFolder(self.root / "flambe-output" / f"output__{name}")

    def metrics(self, name: str) -> dict[str, float | None]:
        record = RunRecord.read(self.folder(name))
        assert record is not None
        return {row.variant.id: row.variant.metric for row in record.rows()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Run, "_default_executor", lambda self, root: InlineExecutor(root))
    return Project(tmp_path)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_the_same_configuration_is_run_into_a_folder_of_its_own(
    project: Project, call: Call
) -> None:
    assert call("first.yaml", "train.rate=!g [1.0, 3.0]")[0] == 0
    project.config.write_text("something else")
    project.git("checkout", "first.yaml")
    code, _, err = call("rerun", "first")
    assert code == 0, err
    assert "first: the code, the packages and the data are the same" in err
    assert project.metrics("first-rerun") == project.metrics("first")
    assert sorted(project.metrics("first-rerun").values(), key=str) == [1.0, 3.0]
    (start,) = read_invocations(project.folder("first-rerun").invocations)
    assert start.overrides == ["train.rate=!g [1.0, 3.0]", "name=first-rerun"]
    assert "# as in the paper" in start.config
    assert call("rerun", "first")[0] == 0
    assert project.folder("first-rerun-2").state.exists()
    # The latest one is continued: all of it is done.
    assert call("rerun", "first", "--resume")[0] == 0
    record = RunRecord.read(project.folder("first-rerun-2"))
    assert record is not None
    assert {row.variant.status for row in record.rows()} == {Status.REUSED}
    assert not project.folder("first-rerun-3").root.exists()


def test_what_differs_is_named_and_not_run_without_a_yes(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("first.yaml")[0] == 0
    lines = project.folder("first").invocations
    starts = [json.loads(line) for line in lines.read_text().splitlines()]
    starts[0]["python"] = "CPython 3.9.1"
    starts[1]["packages"]["numpy"] = "0.9"
    starts[1]["packages"]["gone"] = "1.0"
    lines.write_text("".join(json.dumps(start) + "\n" for start in starts))
    project.code.write_text(CODE.replace("1 * self.rate", "2 * self.rate"))
    code, _, err = call("rerun", "first")
    assert code == 2, err
    assert "Python: CPython 3.9.1, now CPython" in err
    assert "numpy 0.9, now" in err
    assert "gone 1.0, now not installed" in err
    assert "pip install 'numpy==0.9' 'gone==1.0'" in err
    assert f"{project.root.name}: other changes in {project.code.name}" in err
    assert f"2 variants: code of {project.code.stem}.Net changed" in err
    assert "--yes runs it anyway" in err
    assert not project.folder("first-rerun").root.exists()
    assert call("rerun", "first", "--dry-run")[0] == 0
    assert not project.folder("first-rerun").root.exists()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "n")
    assert call("rerun", "first")[0] == 2
    monkeypatch.setattr("builtins.input", lambda text: "y")
    assert call("rerun", "first", "--name", "asked")[0] == 0
    assert call("rerun", "first", "--yes", "--name", "again")[0] == 0
    assert project.folder("again").state.exists()


def test_another_commit_is_named_and_the_changes_of_then_are_printed(
    project: Project, call: Call, tmp_path: Path
) -> None:
    project.code.write_text(CODE + "\nrate = 5\n")
    assert call("first.yaml")[0] == 0
    (start,) = read_invocations(project.folder("first").invocations)
    commit = start.repositories[0].commit
    _, patch, _ = call("rerun", "first", "--patch")
    assert "+rate = 5" in patch
    project.git("commit", "-qam", "second")
    code, _, err = call("rerun", "first", "--dry-run")
    assert code == 0, err
    assert f"git -C {project.root} checkout {commit[:12]}" in err
    # The tree of that time is made again from both.
    project.git("checkout", "-q", commit)
    (tmp_path / "patch.diff").write_text(patch)
    project.git("apply", "patch.diff")
    assert "are the same" in call("rerun", "first", "--dry-run")[2]


def test_included_parts_are_those_of_then(project: Project, call: Call) -> None:
    part = project.root / "part.yaml"
    part.write_text("[1.0, 2.0]\n")
    text = project.config.read_text()
    project.config.write_text(
        text.replace("!g [1.0, 2.0]  # as in the paper", "!include part.yaml")
    )
    part.write_text("7.0\n")
    assert call("first.yaml")[0] == 0
    part.write_text("8.0\n")
    assert call("rerun", "first", "--yes")[0] == 0
    assert list(project.metrics("first-rerun").values()) == [7.0]


def test_a_run_of_an_earlier_version_says_what_is_not_recorded(
    project: Project, call: Call
) -> None:
    assert call("first.yaml")[0] == 0
    project.folder("first").invocations.unlink()
    code, _, err = call("rerun", "first")
    assert code == 2, err
    assert "its code and packages were not recorded" in err
    assert call("rerun", "first", "--yes")[0] == 0
    assert project.metrics("first-rerun") == project.metrics("first")
    code, _, err = call("rerun", "first", "--patch")
    assert code == 2, err
    assert "no changes since a commit were recorded" in err
