"""One run at a time writes a folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.errors import ConfigError
from flambe.experiment.storage import folder_lock
from flambe.experiment.storage.folder_lock import FolderLock
from flambe.progress import Status
from flambe.remote import identity
from tests.experiment.lab import Lab, command, environment, flambe, until

NOTES: list[str] = []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    NOTES.clear()
    return tmp_path / "out" / "output__trial"


def lock(folder: Path) -> FolderLock:
    return FolderLock(folder, NOTES.append)


def elsewhere(folder: Path) -> Path:
    """Write the file of a holder on another machine, which no kernel here knows of."""
    path = lock(folder).path
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = {"pid": 7, "host": "far", "user": "ann", "boot": "other", "started": 1.0}
    path.write_text(json.dumps(holder))
    return path


def test_it_is_held_once_and_leaves_nothing(folder: Path) -> None:
    with lock(folder):
        with pytest.raises(ConfigError) as refused, lock(folder):
            pass
        said = str(refused.value)
        assert f"is being written by another run: process {os.getpid()} of " in said
        assert "another run needs another name or save_path" in said
    with lock(folder):
        pass
    assert list(folder.parent.iterdir()) == []


def test_what_a_killed_process_held_is_free(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from flambe.experiment.storage.folder_lock import FolderLock; "
        "FolderLock(Path(sys.argv[1]), print).acquire(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match=f"process {holder.pid} of"), lock(folder):
        pass
    holder.kill()
    holder.communicate()
    with lock(folder):
        assert NOTES == []


@contextlib.contextmanager
def beating(path: Path) -> Iterator[None]:
    """Let a lock give signs of life, as its holder elsewhere does."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_holder_on_another_machine_that_gives_signs_of_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernels of two machines do not share locks."""
    path = elsewhere(folder)
    with beating(path), pytest.raises(ConfigError, match="process 7 of ann on far"), lock(folder):
        pass
    assert path.exists()  # it is not ours to remove
    monkeypatch.setattr(folder_lock, "EXPIRY_SECONDS", 0.3)
    with lock(folder):  # it is silent now
        assert "waiting up to 0 s" in NOTES[-1]


@pytest.mark.parametrize("name", ["namespace", "boot", "machine"])
def test_a_holder_in_a_container_of_this_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its name, its user, its number and even the kernel may be ours, and no lock be shared."""
    path = lock(folder).path
    with lock(folder):
        mine = json.loads(path.read_text())
    path.write_text(json.dumps({**mine, "process": {**mine["process"], name: "another"}}))
    with (
        beating(path),
        pytest.raises(ConfigError, match="is being written by another run"),
        lock(folder),
    ):
        pass
    monkeypatch.setattr(folder_lock, "EXPIRY_SECONDS", 0.3)
    with lock(folder):
        assert "waiting up to 0 s" in NOTES[-1]


def test_a_holder_on_this_machine_where_there_are_no_locks(folder: Path) -> None:
    path = lock(folder).path
    with lock(folder), subprocess.Popen(["sleep", "1000"]) as other:
        mine = json.loads(path.read_text())
        mine.update(pid=other.pid, process=identity.of_process(other.pid))
        other_lock = json.dumps(mine)
        path.unlink()
        path.write_text(other_lock)
        with pytest.raises(ConfigError, match=f"process {other.pid} of"), lock(folder):
            pass
        other.kill()
        other.wait()
        with lock(folder):
            assert NOTES == []


def test_the_file_of_an_earlier_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lock(folder).path
    path.parent.mkdir(parents=True)
    holder = {"pid": 7, "host": "far", "user": "ann", "boot": identity.boot(), "started": 1.0}
    path.write_text(json.dumps(holder))
    with lock(folder):  # the kernel says that it is gone
        assert NOTES == []


def test_a_file_that_says_nothing_is_in_nobodys_way(folder: Path) -> None:
    path = lock(folder).path
    path.parent.mkdir(parents=True)
    for content in (b"", b"[1]", b'{"pid": 1}', b"\xff" * 10):
        path.write_bytes(content)
        with lock(folder):
            assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    path = lock(folder).path
    path.parent.mkdir(parents=True)
    mine = tmp_path / "mine"
    mine.write_text("kept")
    path.symlink_to(mine)
    with pytest.raises(ConfigError, match="cannot make the output folder"), lock(folder):
        pass
    assert mine.read_text() == "kept"


def test_it_is_touched_while_it_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.02)
    with lock(folder) as held:
        first = held.path.stat().st_mtime_ns
        until(lambda: held.path.stat().st_mtime_ns > first, "it was touched", 10)


@pytest.mark.integration
@pytest.mark.faults
def test_a_second_run_in_a_folder_is_refused(lab: Lab) -> None:
    lab.write("a: !pieces.Walk {steps: 1000, delay: 0.05, record: RECORD}")
    first = subprocess.Popen(
        command(lab.config),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: len(lab.records()) > 3, "it runs")
        for option in ("--resume", "--force", "--resume-from=a", "--debug"):
            refused = flambe(lab.config, option)
            assert refused.returncode == 2, refused.stdout + refused.stderr
            assert f"is being written by another run: process {first.pid} of" in refused.stderr
            assert "--resume" not in refused.stderr
        steps = len(lab.records())
        until(lambda: len(lab.records()) > steps + 3, "it goes on")
        assert {v.status for v in lab.folder.read_variants().values()} == {Status.RUNNING}
    finally:
        first.terminate()
        first.communicate(timeout=60)
    assert sorted(path.name for path in lab.folder.root.parent.iterdir()) == ["output__trial"]


def test_a_run_that_is_refused_changes_nothing(lab: Lab) -> None:
    lab.run("a: !pieces.Walk {steps: 1}").fine()
    before = {
        path: path.stat().st_mtime_ns for path in lab.folder.root.rglob("*") if path.is_file()
    }
    with lock(lab.folder.root):
        assert isinstance(lab.run(force=True).error, ConfigError)
        assert isinstance(lab.run(resume=True).error, ConfigError)
    assert before == {p: p.stat().st_mtime_ns for p in lab.folder.root.rglob("*") if p.is_file()}
