"""What flambe makes is reached by its owner alone, whatever the umask and whatever was there."""

from __future__ import annotations

import logging
import os
import pickle
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe._files import private_folder, private_opener, write_private
from flambe.errors import UnsafePathError
from flambe.logging import console


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask000", "umask022", "umask077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_private_folder_and_its_missing_parents_are_0700(tmp_path: Path, umask: int) -> None:
    folder = private_folder(tmp_path / "a" / "b" / "c")
    assert folder == tmp_path / "a" / "b" / "c"
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


def test_a_wider_folder_of_ours_is_tightened_and_its_parents_are_left(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "logs"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    folder.parent.chmod(0o755)
    private_folder(folder)
    assert (mode(folder), mode(folder.parent)) == (0o700, 0o755)


@pytest.mark.parametrize("target", ["folder", "nothing"])
def test_a_link_is_refused_as_a_private_folder(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(UnsafePathError, match="link is a link"):
        private_folder(tmp_path / "link")
    assert mode(tmp_path / "folder") == 0o755


def test_a_file_is_refused_as_a_private_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnsafePathError, match="file is not a folder"):
        private_folder(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of another user: needs root")
def test_the_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(UnsafePathError, match="another user .uid 12345"):
        private_folder(folder)


def test_the_error_survives_a_process() -> None:
    error = pickle.loads(pickle.dumps(UnsafePathError("x is a link")))
    assert str(error) == "x is a link"
    assert isinstance(error, OSError)


def test_a_private_file_is_0600_and_replaces_a_wider_one(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    write_private(path, "new ✓")
    assert (path.read_text("utf-8"), mode(path)) == ("new ✓", 0o600)
    write_private(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_never_writes_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / "file").symlink_to(victim)
    write_private(tmp_path / "file", "ours")
    assert victim.read_text() == "theirs"
    (tmp_path / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        open(tmp_path / "log", "a", opener=private_opener)


def test_a_reader_sees_a_private_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {letter * 200_000 for letter in "ab"}
    write_private(path, "a" * 200_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(50):
            for text in texts:
                write_private(path, text)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_text() in texts
    writer.join()


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_opened_file_is_0600_also_one_that_was_wider(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        with open(path, "a", opener=private_opener) as stream:
            stream.write("line\n")
        assert mode(path) == 0o600
        path.chmod(0o666)
    assert path.read_text() == "line\nline\n"


# -- logs -----------------------------------------------------------------------------------------


def test_logs_are_private_also_when_they_rotate(home: Path, umask: int) -> None:
    home.chmod(0o755)
    console.setup()
    for number in range(3):
        logging.getLogger("flambe.test").debug("%d%s", number, "x" * 1_500_000)
    logs = home / "logs"
    assert sorted(path.name for path in logs.iterdir()) == ["log.log", "log.log.1", "log.log.2"]
    assert {mode(path) for path in logs.iterdir()} == {0o600}
    assert (mode(home), mode(logs)) == (0o700, 0o700)


def test_logs_of_an_earlier_version_are_tightened(home: Path) -> None:
    logs = home / "logs"
    logs.mkdir()
    (logs / "log.log").touch()
    for path, wide in ((home, 0o777), (logs, 0o755), (logs / "log.log", 0o644)):
        path.chmod(wide)
    console.setup()
    assert (mode(home), mode(logs), mode(logs / "log.log")) == (0o700, 0o700, 0o600)


def test_a_link_in_the_way_of_the_log_is_not_followed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir()
    (home / "logs").symlink_to(tmp_path / "theirs")
    console.setup()
    assert "no log file: " in capsys.readouterr().err
    assert not list((tmp_path / "theirs").iterdir())


def test_flambes_own_folder_may_be_a_link_of_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "link"))
    assert console.home_folder("logs") == tmp_path / "link" / "logs"
    assert (mode(tmp_path / "disk"), mode(tmp_path / "disk" / "logs")) == (0o700, 0o700)
