"""Workers and the command import the same modules, whatever is in the working folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.experiment.executors.tune.import_path import job_config, leading_folders
from tests.experiment.lab import Lab, environment

pytestmark = pytest.mark.integration

NAMES = ("numpy", "torch", "csv", "queue", "random", "statistics")


def test_modules_in_the_working_folder_are_not_imported(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text("raise RuntimeError('of the working folder')\n")
    lab.write("a: !pieces.Loads {modules: [numpy, torch, statistics]}")
    # Each way to start it has a rule of its own for what is imported from the working folder.
    script = Path(sys.executable).with_name("flambe")
    for command in ([str(script)], [sys.executable, "-m", "flambe", "validate"]):
        result = subprocess.run(
            [*command, str(lab.config)],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
    [variant] = lab.folder.read_variants().values()
    assert variant.metric == 3.0


def test_folders_that_a_script_or_notebook_imports_from_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray  # noqa: F401 (it puts a folder of its own in front)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib", *sys.path, "/appended"])
    folders = leading_folders()
    assert folders[:2] == [str(tmp_path), str(tmp_path / "lib")]
    assert os.path.dirname(os.__file__) not in folders
    assert "/appended" not in folders
    sent = job_config()._py_driver_sys_path
    sent.extend(["/elsewhere"])  # as ray.init does
    assert list(reversed(sent)) == folders
