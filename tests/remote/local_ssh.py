"""An ``ssh`` program that stands in for OpenSSH's: the host is this machine, its shell is sh.

What the real one does is tested on real hosts (``tests/cluster``); this one shows in milliseconds,
and without root, what :mod:`flambe.remote` makes of what ssh prints and returns. A folder scripts
it: each line of ``failures`` is what the next master prints before it fails, ``shell`` is a program
that the host's shell runs before each command.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.remote import Address, Connection, Login

PROGRAM = '''#!{python} -IS
import os, socket, subprocess, sys, time

folder, arguments = {folder!r}, sys.argv[1:]
with open(folder + "/calls", "a") as calls:
    calls.write(" ".join(arguments) + "\\n")


def option(name):
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def greets(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
            return bool(client.recv(1))
        except OSError:
            return False


def serve(path):
    """Greet each client, as a master does, until the socket is removed."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    server.settimeout(0.05)
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    while os.path.exists(path) and os.path.exists(folder):
        try:
            client, _ = server.accept()
            client.send(b"x")
            client.close()
        except socket.timeout:
            pass


path = option("-S")
if "-M" in arguments:
    failures = folder + "/failures"
    lines = open(failures).read().splitlines() if os.path.exists(failures) else []
    if lines:
        open(failures, "w").write("".join(line + "\\n" for line in lines[1:]))
        open(option("-E"), "w").write(lines[0].replace("|", "\\n") + "\\n")
        sys.exit(255)
    serve(path)
if "-O" in arguments:
    if option("-O") == "exit" and os.path.exists(path):
        os.remove(path)
    sys.exit(0 if greets(path) else 255)
if not greets(path):
    sys.stderr.write("Connection closed by UNKNOWN port 65535\\n")
    sys.exit(255)
command = " ".join(arguments[arguments.index("--") + 2 :]) if "--" in arguments else ""
if "--" not in arguments:  # as rsync calls it: ssh OPTIONS HOST COMMAND
    command = " ".join(arguments[arguments.index("host") + 1 :])
noise = folder + "/shell"
before = open(noise).read() if os.path.exists(noise) else ""
os.setsid()  # as sshd does: what kills the group of a command kills no more
os.execv("/bin/sh", ["sh", "-c", before + "\\n" + command])
'''


class LocalSsh:
    """The program in a folder that is first in ``PATH``, and connections that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connections: list[Connection] = []
        program = folder / "ssh"
        text = PROGRAM.replace("{python}", sys.executable).replace("{folder!r}", repr(str(folder)))
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def fail(self, *outputs: str) -> None:
        """Let the next masters fail; ``|`` in what they print ends a line."""
        (self.folder / "failures").write_text("".join(f"{output}\n" for output in outputs))

    def shell(self, script: str) -> None:
        """Let the host's shell do something before each command."""
        (self.folder / "shell").write_text(script)

    @property
    def masters(self) -> int:
        """How many masters were started, those that failed included."""
        calls = (self.folder / "calls").read_text().splitlines()
        return sum(call.startswith("-M ") for call in calls)

    def connection(self) -> Connection:
        """Return a connection that no other has; it is closed at the end of the test."""
        login = Login(Address("host"), f"user{len(self.connections)}", self.folder / "known_hosts")
        self.connections.append(Connection(login, "gpu-1"))
        return self.connections[-1]


@pytest.fixture
def local_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSsh]:
    """Yield the program, and close its connections."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))
    program = LocalSsh(folder)
    yield program
    for connection in program.connections:
        connection.socket.unlink(missing_ok=True)  # its master ends then
