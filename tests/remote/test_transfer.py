"""Copies by rsync: what is copied, what is continued, and what rsync's errors become."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.errors import CommandError, RemoteError, ShellError, UnreachableError
from flambe.remote import Copy, Host, resumable_copy, transfer
from flambe.remote.resumable_copy import PARTIAL
from tests.remote.local_ssh import LocalSsh, local_ssh

__all__ = ["local_ssh"]  # a fixture


@pytest.fixture
def host(local_ssh: LocalSsh, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(resumable_copy, "WAIT_FIRST", 0.01)
    connection = local_ssh.connection()
    yield Host(connection)
    connection.close()


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_brought_up_to_date(host: Host, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "deep").mkdir(parents=True)
    (here / "a.txt").write_text("a")
    (here / "deep" / "b.txt").write_text("b")
    (here / "c.pyc").write_text("c")
    host.send(here, str(there), exclude=["*.pyc"])
    assert files(there) == {"a.txt": "a", "deep/b.txt": "b"}
    (here / "a.txt").unlink()
    host.send(here, str(there), exclude=["*.pyc"])
    assert "a.txt" in files(there)
    host.send(here, str(there), delete=True, exclude=["*.pyc"])
    assert files(there) == {"deep/b.txt": "b"}
    back = tmp_path / "back"
    host.fetch(f"{there}/", back)
    assert files(back) == {"deep/b.txt": "b"}
    host.fetch(f"{there}/deep/b.txt", tmp_path / "one" / "b.txt")
    assert files(tmp_path / "one") == {"b.txt": "b"}


def test_what_an_earlier_copy_left_is_removed(host: Host, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "a").write_text("a")
    (there / "sub" / PARTIAL).mkdir(parents=True)
    (there / "sub" / PARTIAL / "old").write_text("half")
    host.send(here, str(there))
    assert files(there) == {"a": "a"}


def test_a_copy_is_tried_again_when_the_connection_was_lost(
    local_ssh: LocalSsh, host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").write_text("a")
    mark = tmp_path / "lost"
    host.begin(str(tmp_path / "there"), is_folder=True)
    # The first rsync loses its server, and the master with it.
    socket = host.connection.socket  # type: ignore[attr-defined]
    local_ssh.shell(f"[ -e {mark} ] || {{ touch {mark}; rm -f {socket}; exit 255; }}")
    host.connection.copy(Copy(tmp_path / "here", str(tmp_path / "there"), True))
    assert files(tmp_path / "there") == {"a": "a"}
    assert "gpu-1: connection lost while" in caplog.text


def test_a_connection_that_is_lost_again_and_again_is_given_up(
    local_ssh: LocalSsh, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("a")
    host.connection.open()
    local_ssh.shell("exit 255")
    with pytest.raises(UnreachableError) as raised:
        host.connection.copy(Copy(tmp_path / "a", "a", True))
    assert "the connection was lost again and again while" in str(raised.value)
    assert "the same command continues where it was" in str(raised.value)


def test_a_missing_source_is_named_without_rsyncs_own_words(host: Host, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="No such file") as raised:
        host.fetch(str(tmp_path / "nothing"), tmp_path / "x")
    assert not isinstance(raised.value, CommandError)
    assert "rsync error" not in str(raised.value)
    assert f"it failed while {tmp_path}/nothing is brought to {tmp_path}/x" in str(raised.value)


def test_a_host_without_rsync_is_named(local_ssh: LocalSsh, host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    host.connection.open()
    local_ssh.shell("PATH=/nowhere")
    with pytest.raises(RemoteError, match="rsync is not installed on gpu-1: apt-get install rsync"):
        host.connection.copy(Copy(tmp_path / "a", "a", True))


def test_a_shell_that_prints_is_refused_before_a_copy(
    local_ssh: LocalSsh, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("a")
    local_ssh.shell("echo hello")
    with pytest.raises(ShellError, match="rsync and SFTP do not work"):
        host.send(tmp_path / "a", str(tmp_path / "there" / "a"))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("rsync  version 3.2.7  protocol version 31\n", (3, 2, 7)),
        ("rsync  version v3.1.2  protocol version 31", (3, 1, 2)),
        ("openrsync: protocol version 29\nrsync version 2.6.9 compatible", ()),
        ("", ()),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert transfer.parsed(text) == version


def test_times_are_exact_where_both_sides_can() -> None:
    assert "--modify-window=-1" in transfer.options((3, 2, 7), (3, 1, 3))
    assert "--modify-window=-1" in transfer.options((3, 2, 7), ())
    assert "--modify-window=-1" not in transfer.options((3, 2, 7), (3, 1, 2))
