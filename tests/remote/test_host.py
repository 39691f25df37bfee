"""A host: what is run and sent, and what becomes of errors; nothing of it needs a host."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flambe.errors import (
    CommandError,
    DeadlineError,
    FanOutError,
    RemoteError,
    UnreachableError,
)
from flambe.remote import Copy, Host, each
from flambe.remote.resumable_copy import PARTIAL
from flambe.testing import FakeConnection


@pytest.fixture
def connection() -> FakeConnection:
    return FakeConnection("gpu-1")


@pytest.fixture
def host(connection: FakeConnection) -> Host:
    return Host(connection)


# -- commands -------------------------------------------------------------------------------------


def test_a_command_is_a_list_that_is_quoted_once(connection: FakeConnection, host: Host) -> None:
    host.run(["echo", "a b", "$HOME", Path("/x y")], env={"A": "it's"}, folder="work dir")
    (command,) = connection.commands
    assert command.argv == ("echo", "a b", "$HOME", "/x y")
    assert command.script == "cd 'work dir' && env 'A=it'\"'\"'s' echo 'a b' '$HOME' '/x y'"
    assert str(command) == "echo 'a b' '$HOME' '/x y'"
    with pytest.raises(TypeError, match="as a list"):
        host.run("echo hello")


def test_a_result_has_what_the_command_printed(connection: FakeConnection, host: Host) -> None:
    connection.answer(["nvidia-smi"], "GPU 0\nGPU 1\n", stderr="a warning\n")
    lines: list[tuple[str, str]] = []
    result = host.run(["nvidia-smi", "-L"], take=lambda stream, line: lines.append((stream, line)))
    assert (result.host, result.command, result.code) == ("gpu-1", "nvidia-smi -L", 0)
    assert (result.stdout, result.stderr) == ("GPU 0\nGPU 1\n", "a warning\n")
    assert lines == [("stdout", "GPU 0"), ("stdout", "GPU 1"), ("stderr", "a warning")]
    assert connection.is_open


def test_a_failed_command_is_an_error_with_its_last_lines(
    connection: FakeConnection, host: Host
) -> None:
    connection.answer(["make"], stderr="\n".join(f"line {n}" for n in range(30)), code=2)
    with pytest.raises(CommandError) as raised:
        host.run(["make", "all"], shown="building")
    assert str(raised.value).startswith("gpu-1: exit code 2: building\n  | line 18\n")
    assert str(raised.value).endswith("\n  | line 29")
    assert host.run(["make"], check=False).code == 2


def test_a_lost_connection_repeats_what_may_be_repeated(
    connection: FakeConnection, host: Host
) -> None:
    lost = UnreachableError("gpu-1", "the connection was lost during: ls")
    connection.answer(["ls"], error=lost)
    connection.answer(["ls"], "a file\n")
    assert host.run(["ls"], repeat=True).stdout == "a file\n"
    connection.answer(["rm"], error=lost)
    connection.answer(["rm"])
    with pytest.raises(UnreachableError, match="lost during"):
        host.run(["rm", "x"])
    assert connection.argvs == [["ls"], ["ls"], ["rm", "x"]]


def test_a_deadline_is_an_error_of_its_own(connection: FakeConnection, host: Host) -> None:
    connection.answer(["sleep"], error=DeadlineError("gpu-1", "sleep 100", -9, "", ""))
    with pytest.raises(DeadlineError, match="not ended in time, and killed: sleep 100"):
        host.run(["sleep", "100"], deadline=1)


# -- files ----------------------------------------------------------------------------------------


def test_a_file_is_written_and_read(connection: FakeConnection, host: Host) -> None:
    host.put("text ✓", "etc/config", mode=0o640)
    assert connection.files == {"etc/config": "text ✓".encode()}
    (command,) = connection.commands
    assert command.argv[-3:] == ("etc/config", "640", str(len("text ✓".encode())))
    assert str(command) == "writing etc/config"
    assert host.read("etc/config") == "text ✓"


def test_a_full_disk_is_explained(connection: FakeConnection, host: Host) -> None:
    connection.answer(["sh", "-c"], stderr="cat: write error: No space left on device\n", code=1)
    usage = "/dev/sda1 10G 10G 0 100% /data\n/dev/sda1 1000 10 990 1% /data\n"
    connection.answer(["sh", "-c"], usage)
    with pytest.raises(RemoteError) as raised:
        host.put("x", "/data/x")
    assert str(raised.value).startswith(
        "gpu-1: no space left for /data/x: /data is full (10G, 0 free)"
    )


def test_what_is_sent_and_fetched_is_copied(
    connection: FakeConnection, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    host.rsync = (3, 2, 7)
    host.send(tmp_path / "data", "data", delete=True, exclude=["*.pyc"])
    host.fetch("results/", tmp_path / "results")
    assert connection.copies == [
        Copy(tmp_path / "data", "data", True, True, ("*.pyc",), (3, 2, 7)),
        Copy(tmp_path / "results", "results/", False, False, (), (3, 2, 7)),
    ]
    assert (tmp_path / "results").is_dir()
    # No copy was cut off there before, so nothing has to be removed.
    assert [str(command) for command in connection.commands] == ["mkdir -p data"]


def test_what_was_cut_off_before_is_removed_behind_a_copy(
    connection: FakeConnection, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    connection.answer(["sh", "-c"], f"./{PARTIAL}\n")
    host.send(tmp_path / "file", "folder/file")
    titles = [str(command) for command in connection.commands]
    assert titles == ["mkdir -p folder", f"removing {PARTIAL} in folder"]


# -- tunnels --------------------------------------------------------------------------------------


def test_a_tunnel_ends_with_its_block(connection: FakeConnection, host: Host) -> None:
    with host.tunnel(8080, host="10.0.0.5") as port:
        assert connection.forwarded == [(port, "10.0.0.5", 8080)]
    assert connection.forwarded == []


def test_a_port_that_is_taken_is_an_error(
    connection: FakeConnection, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "forward", lambda local, host, port: False)
    with (
        pytest.raises(RemoteError, match="cannot forward the local port 9000 to 127.0.0.1:80"),
        host.tunnel(80, local=9000),
    ):
        pass


# -- many hosts -----------------------------------------------------------------------------------


def test_each_host_is_asked_at_the_same_time_and_all_errors_are_named() -> None:
    connections = [FakeConnection(f"host-{n}") for n in range(4)]
    together = threading.Barrier(4, timeout=30)
    for connection in connections:
        connection.answer(["hostname"], lambda command, c=connection: f"{together.wait()}{c.name}")  # type: ignore[misc]
    hosts = [Host(connection) for connection in connections]
    names = each(lambda host: host.run(["hostname"]).stdout[1:], hosts)
    assert names == ["host-0", "host-1", "host-2", "host-3"]
    connections[1].be_unreachable()
    connections[2].answer(["false"], code=1)
    with pytest.raises(FanOutError) as raised:
        each(lambda host: host.run(["false"]), hosts)
    assert [type(error) for error in raised.value.errors] == [UnreachableError, CommandError]


# -- the fake itself ------------------------------------------------------------------------------


def test_the_longest_scripted_match_counts(connection: FakeConnection, host: Host) -> None:
    connection.answer([], "anything")
    connection.answer(["docker"], "docker")
    connection.answer(["docker", "ps"], "one")
    connection.answer(["docker", "ps"], "two")
    outputs = [host.run(argv).stdout for argv in (["ls"], ["docker", "info"])]
    outputs += [host.run(["docker", "ps", "-a"]).stdout for _ in range(3)]
    assert outputs == ["anything", "docker", "one", "two", "two"]
