"""Disks that are read-only or have no inodes left: a host's, and this machine's own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.remote.disk_errors import explain, is_refusal
from tests.experiment.farm import Farm

pytestmark = pytest.mark.integration

DISK = (
    "/dev/sda1  2.0M  12K  2.0M  1% /home\n"  # as df -Ph, and df -Pi
    "/dev/sda1  {size} {size} {free} 100% /home\n"
)


@pytest.mark.parametrize(
    ("text", "free", "words"),
    [
        (
            "OSError: [Errno 28] No space left on device",
            "0",
            "no inodes left on /home, for .flambe",
        ),
        (
            "No space left on device",
            "7",
            "no space left for .flambe: /home is full (2.0M, 2.0M free)",
        ),
        ("OSError: [Errno 30] Read-only file system: 'x'", "7", ".flambe is read-only (/home)"),
        ("PermissionError: [Errno 13] Permission denied: 'x'", "7", "cannot be written by ann"),
    ],
)
def test_what_a_disk_refuses_is_told(text: str, free: str, words: str) -> None:
    assert is_refusal(text)
    told = explain(text, ".flambe", "ann", DISK.format(size=7, free=free))
    assert words in told
    assert "remote_dir" in told


def test_a_login_that_is_refused_is_no_matter_of_a_disk() -> None:
    assert not is_refusal("ann@host: Permission denied (publickey).")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which needs root")
def test_a_folder_that_is_read_only_and_one_without_inodes(tmp_path: Path) -> None:
    with contextlib.closing(Farm(tmp_path)) as farm:
        home = Path(farm.env["FLAMBE_HOME"])
        there = home / "clusters" / farm.name / "hosts" / "orchestrator" / "home" / ".flambe"
        with mounted(there, "ro"):
            said = farm.flambe(farm.cluster, code=1)
            assert "orchestrator" in said
            assert f"is read-only ({there})" in said
            assert "remount it writable, or give flambe another folder (remote_dir)" in said
            assert "Traceback" not in said
        with mounted(there, "nr_inodes=3"):
            said = farm.flambe(farm.cluster, code=1)
            assert f"no inodes left on {there}" in said
            assert "Traceback" not in said
        with mounted(home, "ro"):
            said = farm.flambe(farm.cluster, code=1)
            assert re.search(f"error: {home}\\S* is on a read-only disk \\({home}\\)", said), said
            assert "or set FLAMBE_HOME to another folder" in said
            assert "Traceback" not in said
