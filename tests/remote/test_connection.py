"""Connections: when ssh is tried again, what its errors become, and when a master is used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from flambe.errors import HostKeyError, RemoteError, UnreachableError
from flambe.remote import Connection, Host, each, ssh_master
from tests.remote.local_ssh import LocalSsh, local_ssh

__all__ = ["local_ssh"]  # a fixture


@pytest.fixture
def connection(local_ssh: LocalSsh) -> Iterator[Connection]:
    connection = local_ssh.connection()
    yield connection
    connection.close()


def test_one_master_serves_all_commands(local_ssh: LocalSsh, connection: Connection) -> None:
    host = Host(connection)
    each(lambda n: host.run(["echo", str(n)]), range(4))
    assert local_ssh.masters == 1
    # Another process of the same user finds it.
    Host(Connection(connection.login)).run(["true"])
    assert local_ssh.masters == 1
    connection.close()
    assert not connection.alive()
    host.run(["true"])
    assert local_ssh.masters == 2


def test_a_refused_connection_is_tried_again(local_ssh: LocalSsh, connection: Connection) -> None:
    local_ssh.fail(*["ssh: connect to host host port 22: Connection refused"] * 2)
    connection.open(20)
    assert local_ssh.masters == 3
    assert connection.alive()


def test_the_last_message_is_named_when_the_time_is_over(
    local_ssh: LocalSsh, connection: Connection
) -> None:
    local_ssh.fail(*["ssh: connect to host host port 22: Connection refused"] * 99)
    with pytest.raises(UnreachableError) as raised:
        connection.open(0.5)
    text = str(raised.value)
    assert text.startswith("gpu-1: no connection within 0 s: ssh: connect to host")
    assert "\n  tried: ssh user0@host" in text
    assert "does its SSH server listen on another port?" in text
    assert local_ssh.masters < 5


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("user@host: Permission denied (publickey).", "are the user and the key right"),
        ("ssh: Could not resolve hostname host: Name or service not known", "is the name right"),
        ('Load key "/k": error in libcrypto', "is that a private key"),
    ],
)
def test_an_error_that_stays_is_raised_at_once(
    local_ssh: LocalSsh, connection: Connection, output: str, message: str
) -> None:
    local_ssh.fail(output)
    with pytest.raises(UnreachableError, match=message):
        connection.open(60)
    assert local_ssh.masters == 1


def test_a_new_host_may_refuse_the_login_for_a_while(
    local_ssh: LocalSsh, connection: Connection
) -> None:
    local_ssh.fail("user@host: Permission denied (publickey).")
    connection.open(20, patient=True)
    assert local_ssh.masters == 2


def test_a_changed_host_key_stops_everything(local_ssh: LocalSsh, connection: Connection) -> None:
    changed = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @"
    local_ssh.fail(
        f"{changed}|Offending ED25519 key in /home/u/known:7|Host key verification failed."
    )
    with pytest.raises(HostKeyError, match="nothing was sent") as raised:
        connection.open(60)
    assert "(/home/u/known, line 7)" in str(raised.value)
    assert local_ssh.masters == 1


def test_an_unknown_jump_host_is_named(local_ssh: LocalSsh, connection: Connection) -> None:
    local_ssh.fail("Host key verification failed.|Connection closed by UNKNOWN port 65535")
    with pytest.raises(UnreachableError, match=r"\(ProxyJump\) is not known to you yet"):
        connection.open(60)


def test_a_new_key_is_noted(local_ssh: LocalSsh, connection: Connection) -> None:
    local_ssh.fail("Warning: Permanently added 'host' to the list of known hosts.|Connection reset")
    connection.open(20)
    assert connection.new_key


def test_no_ssh_is_named(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RemoteError, match="ssh is not installed: install openssh-client"):
        connection._start(patient=False)


def test_waiting_for_a_host_ends_with_the_fan_out(
    local_ssh: LocalSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host waits for minutes, another one fails with a bug: the first is not waited for."""
    local_ssh.fail(*["ssh: connect to host host port 22: Connection refused"] * 999)
    waits, begun = threading.Event(), time.monotonic()
    original = ssh_master.SshMaster._start

    def start(self: ssh_master.SshMaster, patient: bool) -> None:
        waits.set()
        original(self, patient)

    monkeypatch.setattr(ssh_master.SshMaster, "_start", start)
    connection = local_ssh.connection()

    def use(number: int) -> None:
        if number:
            waits.wait(30)
            raise ZeroDivisionError
        connection.open(300)

    with pytest.raises(ZeroDivisionError):
        each(use, [0, 1])
    assert time.monotonic() - begun < 60


def test_a_lost_connection_is_an_error_and_the_next_command_makes_another(
    local_ssh: LocalSsh, connection: Connection
) -> None:
    host = Host(connection)
    lost = ["sh", "-c", f"rm -f {connection.socket}; exit 255"]
    with pytest.raises(UnreachableError, match="the connection was lost during: sh -c"):
        host.run(lost)
    assert host.run(["echo", "again"]).stdout == "again\n"
    assert local_ssh.masters == 2
