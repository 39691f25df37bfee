"""One OpenSSH connection to a host, which commands, copies and tunnels share.

The system's ``ssh`` does it, so that the user's configuration, agent, jump hosts and hardware keys
work. A master process holds the connection and outlives this one for a while: the next command of
the user needs no handshake.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flambe._files import file_lock, private_folder, private_opener, write_private
from flambe._grammar import as_list
from flambe.errors import HostKeyError, RemoteError, UnreachableError
from flambe.logging.console import home
from flambe.remote import cancel_scope, ssh_errors
from flambe.remote.address import SSH_PORT, Address
from flambe.remote.ssh_config import quoted

# How long the master waits for the next command, in seconds.
PERSIST = 120
CONNECT_TIMEOUT = 10
# A master is asked whether its host answers, not more often than this, and how long it may take.
FRESH, PROBE = 20.0, 8.0
# A dead link is noticed after 4 × 15 seconds; a shorter break is survived.
ALIVE_INTERVAL, ALIVE_COUNT = 15, 4
# A socket's path may have 104 bytes on macOS, and ssh adds 17 while it makes it.
LONGEST_SOCKET = 104 - 18


@dataclass(frozen=True)
class Login:
    """How to log in to a host.

    Attributes
    ----------
    address, user
        Where, and as whom.
    key
        A private key; None leaves it to the user's agent and configuration.
    known_hosts
        The host keys of the cluster. A host that is unknown here and to the user is added, a
        changed key stops everything.
    options
        More options of ssh, ``"ProxyJump=gate"``.
    """

    address: Address
    user: str
    known_hosts: Path
    key: Path | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        as_list(self.options, "options takes a list of options of ssh")

    def arguments(self) -> list[str]:
        """Return the arguments of ssh, without the destination."""
        users = "~/.ssh/known_hosts"
        options = [
            "BatchMode=yes",
            f"UserKnownHostsFile={quoted(self.known_hosts)} {users}",
            "StrictHostKeyChecking=accept-new",
            "UpdateHostKeys=no",
            "HashKnownHosts=no",
            f"ConnectTimeout={CONNECT_TIMEOUT}",
            f"ServerAliveInterval={ALIVE_INTERVAL}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            *self.options,
        ]
        if self.key is not None:
            options += [f"IdentityFile={quoted(self.key)}", "IdentitiesOnly=yes"]
        port = ["-p", str(self.address.port)]
        return [*port, "-l", self.user, *(part for o in options for part in ("-o", o))]


class Connection:
    """A connection that is opened at first use, and again when it was lost.

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
        #: What is forwarded, as ``ssh -L`` takes it: also when the connection is made anew.
        self.forwards: list[str] = []
        #: What its shell prints before a command, and whether it reads of a command's input, as it
        #: was seen last: rsync and SFTP stumble upon it.
        self.noise = ""
        self.reads_input = False
        self._answered = float("-inf")

    # -- ssh's command line -------------------------------------------------------------------

    def ssh(self, *arguments: str) -> list[str]:
        """Return an ``ssh`` command line that goes through the master, and never around it."""
        # Without a master, ssh would connect anew: this makes it fail instead.
        return ["ssh", "-S", str(self.socket), "-o", "ProxyCommand=false", *arguments]

    @property
    def destination(self) -> str:
        """The host, as ssh takes it."""
        return self.login.address.host

    def control(self, *arguments: str) -> bool:
        """Tell the master something (``ssh -O``); return whether it did it."""
        command = self.ssh("-O", *arguments, "--", self.destination)
        done = subprocess.run(command, capture_output=True, check=False, timeout=30)
        return done.returncode == 0

    def alive(self) -> bool:
        """Whether there is a master: it greets whoever connects to its socket."""
        # As "ssh -O check" does, which would be a process more for every command.
        with socket.socket(socket.AF_UNIX) as asked, contextlib.suppress(OSError):
            asked.settimeout(CONNECT_TIMEOUT)
            asked.connect(str(self.socket))
            return len(asked.recv(1)) == 1
        return False

    # -- opening and closing ------------------------------------------------------------------

    def open(self, seconds: float = 30.0, *, patient: bool = False) -> None:
        """Connect, unless it is.

        Parameters
        ----------
        seconds
            How long it is tried.
        patient
            The host is new: it may refuse the login until it has found its keys.

        Raises
        ------
        UnreachableError
            If there is no connection in time: with what ssh said last.
        HostKeyError
            If the host's key is not the one that is known.
        """
        with file_lock(self.socket.with_suffix(".lock")):
            if self.alive() and self._answers():
                return
            deadline = time.monotonic() + seconds
            wait = 0.2
            self.close()
            while (error := self._attempt(patient)) is not None:
                if time.monotonic() + wait > deadline:
                    raise UnreachableError(
                        self.name, f"no connection within {seconds:.0f} s: {error}"
                    )
                # Many who come at once are refused at once: they don't come back together.
                cancel_scope.sleep(wait * random.uniform(0.5, 1.5))
                wait = min(wait * 2, 5.0)
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

    def _attempt(self, patient: bool) -> str | None:
        """Start a master; return what went wrong if trying again may help."""
        self.socket.unlink(missing_ok=True)
        _make_known_hosts(self.login.known_hosts)
        with tempfile.NamedTemporaryFile("r", errors="replace") as log:
            # The master keeps its error stream: it is a file, or we would wait for its end.
            command = ["ssh", "-M", "-N", "-f", "-S", str(self.socket), "-E", log.name]
            command += ["-o", f"ControlPersist={PERSIST}", *self.login.arguments()]
            try:
                code = cancel_scope.run(
                    [*command, "--", self.destination],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=4 * CONNECT_TIMEOUT,
                    start_new_session=True,  # no terminal: an ssh to a jump host would ask there
                ).returncode
            except subprocess.TimeoutExpired:
                return "it answers, and then says nothing"
            except FileNotFoundError:
                raise RemoteError(
                    self.name, "ssh is not installed: install openssh-client"
                ) from None
            said = log.read()
        self.new_key = self.new_key or bool(ssh_errors.NEW_KEY.search(said))
        if code == 0:
            self._answered = time.monotonic()
            return None
        if ssh_errors.THROUGH.search(said):
            said = self._on_the_way() + said
        return self._judge(said, code, patient=patient)

    def _judge(self, said: str, code: int, *, patient: bool) -> str:
        """Return what went wrong, of what ssh said; raise it if trying again is no use."""
        if ssh_errors.CHANGED.search(said) or ssh_errors.UNKNOWN_KEY.search(said):
            raise self._key_error(said)
        text = "; ".join(ssh_errors.told(said)[-3:]) or f"ssh ended with exit code {code}"
        text += f"\n  tried: {self.by_hand()}"
        if advice := ssh_errors.advice(said, self.login.key):
            text += f"\n  = {advice}"
        refused = ssh_errors.REFUSED_LOGIN.search(said) and not patient
        if ssh_errors.FINAL.search(said) or refused:
            raise UnreachableError(self.name, text)
        return text

    def _key_error(self, said: str) -> RemoteError:
        if ssh_errors.THROUGH.search(said) and not ssh_errors.CHANGED.search(said):
            return UnreachableError(
                self.name,
                "the host that your ssh configuration reaches it through (ProxyJump) is not known "
                f"to you yet\n  log in once by hand, and accept its key:   {self.by_hand()}",
            )
        where = ssh_errors.offending(said) or str(self.login.known_hosts)
        return HostKeyError(
            self.name,
            "its host key is not the one that is known: it was installed anew, or somebody stands "
            "in between; nothing was sent\n  if you know why, remove the old key "
            f"({where}) and try again",
        )

    def _on_the_way(self) -> str:
        """Return what the ssh to a jump host says, which a master does not let it."""
        alone = ["-o", "ControlPath=none", "--", self.destination, "true"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            return cancel_scope.run(
                ["ssh", *self.login.arguments(), *alone],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                errors="replace",
                timeout=2 * CONNECT_TIMEOUT,
                start_new_session=True,
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


def _make_known_hosts(path: Path) -> None:
    """Make the file before ssh does, which leaves its mode to the umask."""
    private_folder(path.parent)
    with open(path, "a", opener=private_opener):
        pass


def pin(known_hosts: Path, address: Address, keys: Sequence[str]) -> None:
    """Know the keys of a host before the first connection to it, and no others."""
    name = listed(address)
    wanted = [f"{name} {' '.join(key.split()[:2])}" for key in keys]
    with file_lock(known_hosts.with_suffix(".lock")):
        text = known_hosts.read_text(encoding="utf-8") if known_hosts.exists() else ""
        lines = text.splitlines()
        if [line for line in lines if line.split(" ")[0] == name] != wanted:
            kept = [line for line in lines if line.split(" ")[0] != name]
            write_private(known_hosts, "\n".join([*kept, *wanted]) + "\n")


def listed(address: Address) -> str:
    """Return an address as files of known hosts have it."""
    return address.host if address.port == SSH_PORT else f"[{address.host}]:{address.port}"


def fingerprints(known_hosts: Path, address: Address) -> Sequence[str]:
    """Return the fingerprints of the keys that are known of a host."""
    command = ["ssh-keygen", "-l", "-F", listed(address), "-f", str(known_hosts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return re.findall(r"SHA256:\S+", done.stdout)
