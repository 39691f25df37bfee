"""One OpenSSH connection to a host, which commands, copies and tunnels share.

The system's ``ssh`` does it, so that the user's configuration, agent, jump hosts and hardware keys
work. A master process holds the connection and outlives this one for a while: the next command of
the user needs no handshake.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from flambe._files import file_lock, private_folder
from flambe._retry import retry
from flambe.errors import HostKeyError, RemoteError, UnreachableError
from flambe.logging.console import home
from flambe.remote import cancel_scope, known_hosts, ssh_errors
from flambe.remote.address import SSH_PORT
from flambe.remote.login import CONNECT_TIMEOUT, Login

# How long the master waits for the next command, in seconds.
PERSIST = 120
# A master is asked whether its host answers, not more often than this, and how long it may take.
FRESH, PROBE = 20.0, 8.0
# A socket's path may have 104 bytes on macOS, and ssh adds 17 while it makes it.
LONGEST_SOCKET = 104 - 18


class _TemporaryError(Exception):
    """Why a connection could not be made, where trying again may help."""


class SshMaster:
    """A master that is started at first use, and again when it was lost.

    Parameters
    ----------
    login
        How to log in.
    name
        What people call the host.
    """

    def __init__(self, login: Login, name: str = "") -> None:
        self.login = login
        self.name = name or str(login.address)
        digest = hashlib.sha256(repr(login).encode()).hexdigest()[:12]
        self.socket = _socket_folder() / digest
        #: Whether ssh saw the host's key for the first time.
        self.new_key = False
        #: What is forwarded, as ``ssh -L`` takes it: again when the connection was lost.
        self.forwards: list[str] = []
        #: What its shell printed before the last command, and whether it ever read the input of
        #: one: either disturbs rsync and SFTP.
        self.noise = ""
        self.reads_input = False
        self._answered = float("-inf")

    # -- ssh's command line -------------------------------------------------------------------

    def ssh(self, *arguments: str) -> list[str]:
        """Return an ``ssh`` command line that goes through the master, and never around it."""
        # Without a master, ssh would make a connection of its own: this makes it fail instead.
        return ["ssh", "-S", str(self.socket), "-o", "ProxyCommand=false", *arguments]

    @property
    def destination(self) -> str:
        """The host, as ssh takes it."""
        return self.login.address.host

    def control(self, *arguments: str) -> bool:
        """Send the master a command (``ssh -O``); return whether it succeeded."""
        command = self.ssh("-O", *arguments, "--", self.destination)
        done = subprocess.run(command, capture_output=True, check=False, timeout=30)
        return done.returncode == 0

    def alive(self) -> bool:
        """Whether there is a master: it greets each client of its socket."""
        # As "ssh -O check" does, which would be a process more for every command.
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.settimeout(CONNECT_TIMEOUT)
            client.connect(str(self.socket))
            return len(client.recv(1)) == 1
        return False

    # -- opening and closing ------------------------------------------------------------------

    def open(self, seconds: float = 30.0, *, patient: bool = False) -> None:
        """Connect, if it is not connected.

        Parameters
        ----------
        seconds
            How long it is tried.
        patient
            Whether a refused login is tried again: a new host may not have its keys yet.

        Raises
        ------
        UnreachableError
            If there is no connection in time: with the last message of ssh.
        HostKeyError
            If the host's key is not the one that is known.
        """
        with file_lock(self.socket.with_suffix(".lock")):
            if self.alive() and self._answers():
                return
            self.close()
            try:
                retry(
                    lambda: self._start(patient),
                    seconds=seconds,
                    on=_TemporaryError,
                    pause=0.2,
                    longest=5.0,
                    jitter=True,
                    sleep=cancel_scope.sleep,
                )
            except _TemporaryError as error:
                raise UnreachableError(
                    self.name, f"no connection within {seconds:.0f} s: {error}"
                ) from None
            for forward in self.forwards:
                self.control("forward", "-L", forward)

    def _answers(self) -> bool:
        """Whether the host answers: a master does not notice at once that it was restarted."""
        if time.monotonic() - self._answered < FRESH:
            return True
        try:
            command = self.ssh("--", self.destination, "true")
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PROBE
            )
        except subprocess.TimeoutExpired:
            return False
        # One that takes no further session now answers too, and so does a shell that exits.
        if done.returncode != 255 or b"Session open refused" in done.stderr:
            self._answered = time.monotonic()
            return True
        return False

    def _start(self, patient: bool) -> None:
        """Start a master; raise _TemporaryError if trying again may help."""
        self.socket.unlink(missing_ok=True)
        known_hosts.create(self.login.known_hosts)
        with tempfile.NamedTemporaryFile("r", errors="replace") as log:
            # The master keeps its error stream: it is a file, or we would wait for its end.
            command = ["ssh", "-M", "-N", "-f", "-S", str(self.socket), "-E", log.name]
            command += ["-o", f"ControlPersist={PERSIST}", *self.login.arguments()]
            try:
                code = cancel_scope.run(
                    [*command, "--", self.destination], timeout=4 * CONNECT_TIMEOUT
                ).returncode
            except subprocess.TimeoutExpired:
                raise _TemporaryError("it answers, and then says nothing") from None
            except FileNotFoundError:
                raise RemoteError(
                    self.name, "ssh is not installed: install openssh-client"
                ) from None
            output = log.read()
        self.new_key = self.new_key or bool(ssh_errors.NEW_KEY.search(output))
        if code == 0:
            self._answered = time.monotonic()
            return
        if ssh_errors.THROUGH.search(output):
            output = self._jump_host_output() + output
        raise self._error(output, code, patient=patient)

    def _error(self, output: str, code: int, *, patient: bool) -> RemoteError | _TemporaryError:
        """Return why ssh failed: a _TemporaryError if trying again may help."""
        if ssh_errors.CHANGED.search(output) or ssh_errors.UNKNOWN_KEY.search(output):
            return self._key_error(output)
        lines = ssh_errors.relevant_lines(output)
        text = "; ".join(lines[-3:]) or f"ssh ended with exit code {code}"
        text += f"\n  tried: {self.by_hand()}"
        if advice := ssh_errors.advice(output, self.login.key):
            text += f"\n  = {advice}"
        refused = ssh_errors.REFUSED_LOGIN.search(output) and not patient
        if ssh_errors.FINAL.search(output) or refused:
            return UnreachableError(self.name, text)
        return _TemporaryError(text)

    def _key_error(self, output: str) -> RemoteError:
        if ssh_errors.THROUGH.search(output) and not ssh_errors.CHANGED.search(output):
            return UnreachableError(
                self.name,
                "the host that your ssh configuration reaches it through (ProxyJump) is not known "
                f"to you yet\n  log in once by hand, and accept its key:   {self.by_hand()}",
            )
        where = ssh_errors.offending_entry(output) or str(self.login.known_hosts)
        return HostKeyError(
            self.name,
            "its host key is not the one that is known: it was installed again, or another machine "
            "answers in its place; nothing was sent\n  if you know why, remove the old key "
            f"({where}) and try again",
        )

    def _jump_host_output(self) -> str:
        """Return what the ssh to a jump host prints, which a master suppresses."""
        alone = ["-o", "ControlPath=none", "--", self.destination, "true"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            return cancel_scope.run(
                ["ssh", *self.login.arguments(), *alone],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=2 * CONNECT_TIMEOUT,
            ).stderr
        return ""

    def by_hand(self, *arguments: str) -> str:
        """Return the command line that a person logs in with."""
        address, key = self.login.address, self.login.key
        command = ["ssh", *(["-p", str(address.port)] if address.port != SSH_PORT else [])]
        command += ["-i", str(key)] if key else []
        return shlex.join([*command, f"{self.login.user}@{address.host}", *arguments])

    def close(self) -> None:
        """End the master, and with it all that goes through it."""
        if self.socket.exists():
            self.control("exit")
            self.socket.unlink(missing_ok=True)


def _socket_folder() -> Path:
    folder = home() / "ssh"
    if len(os.fsencode(folder)) + 13 > LONGEST_SOCKET:
        folder = Path("/tmp") / f"flambe-{os.getuid()}"
    return private_folder(folder)
