"""The hash of what a file or a folder holds."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from flambe.logging.console import home
from flambe.packaging import contents
from flambe.packaging.contents import content_hash, listing_hash


def test_the_content_counts_and_not_the_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a")
    two.write_text("a")
    assert content_hash(one) == content_hash(two)
    two.write_text("b")  # of the same size, within the same moment
    assert content_hash(one) != content_hash(two)
    link = tmp_path / "link"
    link.symlink_to(one)
    assert content_hash(link) == content_hash(one)


def test_of_a_folder_the_names_count_too(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x").write_text("1")
    (folder / "y").write_text("2")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe")  # is not waited for
    seen = {content_hash(folder)}
    (folder / "y").write_text("3")
    seen.add(content_hash(folder))
    (folder / "y").rename(folder / "z")
    seen.add(content_hash(folder))
    os.rename(folder / "deep", folder / "deeper")
    seen.add(content_hash(folder))
    assert len(seen) == 4
    os.rename(folder, tmp_path / "elsewhere")
    assert content_hash(tmp_path / "elsewhere") in seen


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "RACY_SECONDS", -10.0)
    file = tmp_path / "file"
    file.write_text("some")
    content_hash(file)
    database = home() / "cache" / "contents.sqlite"
    with sqlite3.connect(database) as known:
        known.execute("UPDATE hashes SET hash = 'kept'")
    known.close()
    assert content_hash(file) == "kept"
    status = file.stat()
    file.write_text("same")  # the size and the time of the change are put back
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_hash(file) != "kept"


def test_what_was_changed_a_moment_ago_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("some")
    content_hash(file)
    with sqlite3.connect(home() / "cache" / "contents.sqlite") as known:
        assert known.execute("SELECT COUNT(*) FROM hashes").fetchone() == (0,)
    known.close()


def test_without_its_database_it_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("some")
    expected = content_hash(file)
    database = home() / "cache" / "contents.sqlite"
    database.write_bytes(b"no database" * 100)
    assert content_hash(file) == expected


def test_names_and_sizes_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    before = listing_hash(tmp_path)
    (tmp_path / "x").write_text("2")
    assert listing_hash(tmp_path) == before
    (tmp_path / "x").write_text("22")
    assert listing_hash(tmp_path) != before
    assert listing_hash(tmp_path / "x") == listing_hash(tmp_path / "x")


def test_it_is_said_when_much_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "LARGE", 3)
    monkeypatch.setattr(contents, "CHUNK", 2)
    notes: list[str] = []
    (tmp_path / "x").write_text("1234567")
    content_hash(tmp_path, notes.append)
    assert notes == [f"hashing the content of {tmp_path}"]
