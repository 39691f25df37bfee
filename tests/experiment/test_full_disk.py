"""A disk that becomes full ends a run, and what was done is kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flambe.progress import RunFolder, Status
from tests.experiment.farm import Going
from tests.experiment.lab import Lab, command, environment, flambe

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which needs root"),
]


Mount = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small disk, with these options."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def on(lab: Lab, disk: Path) -> RunFolder:
    """Let the results go to the disk."""
    text = lab.config.read_text()
    lab.config.write_text(text.replace(str(lab.root / "out"), str(disk)))
    return RunFolder(disk / "output__trial")


FAT = "a: !pieces.Fat {kilobytes: 600, steps: 3, rate: !g [1, 2]}"


def test_a_disk_that_stays_full_ends_the_run_in_order(lab: Lab, disk: Mount) -> None:
    small = disk("size=1500k")
    lab.write(FAT)
    folder = on(lab, small)
    result = flambe(lab.config, env=environment(FLAMBE_DISK_DEADLINE="3"))
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert f": {small} is full (" in result.stderr
    assert f"and {folder.root} is on it" in result.stderr
    assert "to continue, run the same command with --resume" in result.stderr
    state = folder.read_state()
    assert state is not None
    assert state.status is Status.INTERRUPTED
    assert "is full" in state.error
    assert all(entry.status is not Status.RUNNING for entry in folder.read_variants().values())
    subprocess.run(["mount", "-o", "remount,size=9000k", str(small)], check=True)
    again = flambe(lab.config, "--resume")
    assert again.returncode == 0, again.stderr
    assert [entry.step for entry in folder.read_variants().values()] == [3, 3]


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ("size=1500k", "size=9000k", "is full ("),
        ("nr_inodes=12", "nr_inodes=900", "no inodes left"),
    ],
)
def test_a_run_waits_for_room_says_for_what_and_continues(
    lab: Lab, disk: Mount, options: str, more: str, words: str
) -> None:
    small = disk(options)
    lab.write(FAT)
    folder = on(lab, small)
    run = Going(command(lab.config), environment(), lab.root)
    run.says(f"{re.escape(words)}.*the run waits up to 300 s for space")
    assert str(small) in run.text
    subprocess.run(["mount", "-o", f"remount,{more}", str(small)], check=True)
    said = run.ends()
    assert "Traceback" not in said
    assert [entry.step for entry in folder.read_variants().values()] == [3, 3]
    for entry in folder.read_variants().values():
        lines = (folder.variant(entry.stage, entry.name) / "metrics.jsonl").read_text()
        steps = [json.loads(line)["step"] for line in lines.splitlines()]
        assert steps == sorted(set(steps))  # nothing is lost, nothing is there twice
