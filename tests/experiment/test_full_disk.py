"""A disk that becomes full ends a run, and what was done is kept."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.progress import RunFolder, Status
from tests.experiment.lab import Lab, flambe

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which needs root"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_becomes_full(lab: Lab, disk: Path) -> None:
    lab.write("a: !pieces.Fat {kilobytes: 600, steps: 3, rate: !g [1, 2]}")
    text = lab.config.read_text()
    lab.config.write_text(text.replace(str(lab.root / "out"), str(disk)))
    result = flambe(lab.config)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    folder = RunFolder(disk / "output__trial")
    assert f"the disk of {folder.root} is full" in result.stderr
    assert "run the same command with --resume" in result.stderr
    state = folder.read_state()
    assert state is not None
    assert state.status is Status.FAILED
    assert "is full" in state.error
    assert all(entry.status is not Status.RUNNING for entry in folder.read_variants().values())
    subprocess.run(["mount", "-o", "remount,size=9000k", str(disk)], check=True)
    again = flambe(lab.config, "--resume")
    assert again.returncode == 0, again.stderr
    assert [entry.step for entry in folder.read_variants().values()] == [3, 3]
