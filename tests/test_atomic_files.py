"""Files that are written as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flambe._files import replacing, write_atomic, write_private_once


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == path.parent
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["state.json"]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def fill_the_disk() -> None:
        with replacing(path) as part:
            part.write_text("ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_an_error_before_anything_was_written_is_the_one_that_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "x"):
        raise OSError("the disk is full")
    assert os.listdir(tmp_path) == []


def test_a_folder_appears_as_a_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "model") as part:
        part.mkdir()
        (part / "weights").write_bytes(b"w")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "weights").read_bytes() == b"w"


def test_an_interrupted_folder_is_removed(tmp_path: Path) -> None:
    def be_interrupted() -> None:
        with replacing(tmp_path / "model") as part:
            part.mkdir()
            (part / "weights").write_bytes(b"w")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_mode_is_that_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "x").read_text() == "text"


def test_what_exists_is_not_written_again(tmp_path: Path) -> None:
    assert write_private_once(tmp_path / "key", b"first")
    assert not write_private_once(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["key"]
