"""A lock between processes, whose file is removed by whoever holds it."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from flambe._files import file_lock, locked_folder
from tests.examples import examples

# Counts in a file, as only one can at a time.
COUNT = """
import sys
from pathlib import Path
from flambe._files import file_lock
lock, file, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    with file_lock(lock):
        file.write_text(str(int(file.read_text()) + 1))
"""
HOLD = """
import sys, time
from pathlib import Path
from flambe._files import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_one_holds_it_at_a_time_and_no_file_is_left(tmp_path: Path) -> None:
    times = examples(1000)
    file, lock = tmp_path / "count", tmp_path / "made" / "x.lock"
    file.write_text("0")
    command = [sys.executable, "-c", COUNT, str(lock), str(file), str(times)]
    counting = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(120) for process in counting] == [0, 0, 0, 0]
    assert file.read_text() == str(4 * times)
    assert list(lock.parent.iterdir()) == []


@pytest.mark.faults
def test_it_ends_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        with file_lock(lock):
            assert lock.exists()
    assert not lock.exists()


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    try:
        with file_lock(lock):
            raise ValueError("no")
    except ValueError:
        pass
    assert not lock.exists()
    with file_lock(lock):
        pass


def test_a_folder_that_is_removed_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes it for one that was left behind, in just that moment."""
    lock = fcntl.flock
    removed: list[Path] = []

    def flock(file: IO[str], operation: int) -> None:
        if operation == fcntl.LOCK_EX and not removed:
            removed.extend(tmp_path.iterdir())
            with locked_folder(tmp_path, "upload-") as other:
                assert other.exists()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked_folder(tmp_path, "upload-") as folder:
        assert removed
        assert folder not in removed
        (folder / "checkpoint").mkdir()
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())
