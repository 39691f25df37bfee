"""Commands through ssh: streams, deadlines, input, and shells that are in the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.errors import DeadlineError, RemoteError, ShellError
from flambe.remote import Connection, Host, cancel_scope, shell
from tests.remote.local_ssh import LocalSsh, local_ssh

__all__ = ["local_ssh"]  # a fixture


@pytest.fixture
def host(local_ssh: LocalSsh) -> Iterator[Host]:
    connection = local_ssh.connection()
    yield Host(connection)
    connection.close()


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(condition: object, seconds: float = 30.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_both_streams_and_the_code_are_the_commands_own(host: Host) -> None:
    lines: list[tuple[str, str]] = []
    script = "printf 'a\\nb'; echo oops >&2; exit 7"
    result = host.run(
        ["sh", "-c", script], check=False, take=lambda stream, line: lines.append((stream, line))
    )
    assert (result.code, result.stdout, result.stderr) == (7, "a\nb", "oops\n")
    assert sorted(lines) == [("stderr", "oops"), ("stdout", "a"), ("stdout", "b")]


def test_input_of_any_size_comes_whole(host: Host) -> None:
    content = os.urandom(3_000_000).hex()
    assert host.run(["cat"], content=content).stdout == content
    # It may end before it has read everything.
    assert host.run(["head", "-c", "4"], content=content).stdout == content[:4]
    # Without one, there is nothing to read.
    assert host.run(["cat"]).stdout == ""


def test_a_file_is_whole_or_not_there(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    host.put("content", str(path), mode=0o640)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("content", 0o640)
    assert os.listdir(path.parent) == ["file"]
    assert host.read(str(path)) == "content"


def test_a_deadline_kills_the_whole_group(host: Host, tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/child; echo begun; wait"
    with pytest.raises(DeadlineError, match="not ended in time, and killed") as raised:
        host.run(["sh", "-c", script], deadline=1.0)
    assert raised.value.stdout == "begun\n"
    child = int((tmp_path / "child").read_text())
    until(lambda: ended(child))


def test_an_error_of_the_reader_ends_the_command(host: Host, tmp_path: Path) -> None:
    def refuse(stream: str, line: str) -> None:
        raise ValueError(f"not {line}")

    script = f"echo $$ > {tmp_path}/pid; echo this; sleep 1000"
    with pytest.raises(ValueError, match="not this"):
        host.run(["sh", "-c", script], take=refuse)
    until(lambda: ended(int((tmp_path / "pid").read_text())))


def test_what_is_cancelled_ends_and_nothing_begins(host: Host, tmp_path: Path) -> None:
    scope, errors = cancel_scope.CancelScope(), []
    script = f"echo $$ > {tmp_path}/pid; sleep 1000"

    def run() -> None:
        cancel_scope.current.set(scope)
        for command in (["sh", "-c", script], ["touch", f"{tmp_path}/second"]):
            try:
                host.run(command, shown=command[0])
            except RemoteError as error:
                errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    scope.cancel()
    thread.join(30)
    assert errors == ["gpu-1: interrupted during: sh", "gpu-1: interrupted before: touch"]
    until(lambda: ended(int((tmp_path / "pid").read_text())))
    assert not (tmp_path / "second").exists()


# -- shells that are in the way -------------------------------------------------------------------


def test_what_a_shell_prints_before_is_not_the_commands(local_ssh: LocalSsh, host: Host) -> None:
    local_ssh.shell("echo welcome; echo news >&2")
    result = host.run(["echo", "mine"])
    assert (result.stdout, result.stderr) == ("mine\n", "")
    # rsync has no frame around its streams: it would stumble.
    with pytest.raises(ShellError, match=r"prints before a command runs .*\n  \| welcome"):
        host.connection.check_shell()
    local_ssh.shell("")
    host.run(["true"])
    host.connection.check_shell()


def test_a_shell_that_reads_the_input_is_fed_again(local_ssh: LocalSsh, host: Host) -> None:
    local_ssh.shell("read -r swallowed")
    assert host.run(["cat"], content="all of it").stdout == "all of it"
    with pytest.raises(ShellError, match="reads the input of a command"):
        host.connection.check_shell()


def test_a_shell_that_exits_is_named(local_ssh: LocalSsh, host: Host) -> None:
    local_ssh.shell("echo 'This account is not available.'; exit 1")
    with pytest.raises(ShellError, match=r"printed or exited before our command ran") as raised:
        host.run(["true"])
    assert "\n  | This account is not available." in str(raised.value)
    assert "check:   ssh user0@host true" in str(raised.value)


def test_a_shell_that_waits_is_named(
    local_ssh: LocalSsh, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "START", 1.0)
    local_ssh.shell("echo 'Continue? [y/n]'; sleep 1000")
    with pytest.raises(ShellError, match="something waits, for input maybe"):
        host.run(["true"])


def test_a_busy_server_is_asked_again(local_ssh: LocalSsh, host: Host, tmp_path: Path) -> None:
    """sshd refuses a session where too many are open; nothing was started then."""
    mark = tmp_path / "refused"
    local_ssh.shell(
        f"[ -e {mark} ] || {{ touch {mark}; echo 'Session open refused by peer' >&2; exit 255; }}"
    )
    connection = host.connection
    assert isinstance(connection, Connection)
    connection._answered = time.monotonic()  # so that it is not asked before the command
    assert host.run(["echo", "in"]).stdout == "in\n"
    assert mark.exists()
