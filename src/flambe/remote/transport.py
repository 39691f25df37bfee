"""What a :class:`~flambe.remote.Host` needs of a connection, so that tests can have another one.

:class:`~flambe.remote.Connection` does it by OpenSSH, and
:class:`~flambe.testing.FakeConnection` records what it is asked for.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flambe.remote.login import Login
from flambe.remote.result import Result

OnLine = Callable[[str, str], None]  # ("stdout" or "stderr", a line)


@dataclass(frozen=True)
class Command:
    """A command for a host.

    Attributes
    ----------
    argv
        The program and its arguments: no shell reads them.
    env
        Environment variables to add.
    folder
        Its working directory; the home of the user by default.
    title
        What people call it; by default the command itself.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    title: str = ""

    def __str__(self) -> str:
        return self.title or shlex.join(self.argv)

    @property
    def script(self) -> str:
        """The command for ``sh``: the only place where it is quoted."""
        script = shlex.join(self.argv)
        if self.env:
            script = f"env {shlex.join(f'{k}={v}' for k, v in self.env.items())} {script}"
        return script if self.folder is None else f"cd {shlex.quote(self.folder)} && {script}"


@dataclass(frozen=True)
class Copy:
    """A copy of a file or folder, by which one side is brought up to date with the other.

    Attributes
    ----------
    local, remote
        The paths on both sides.
    upload
        Whether the host is brought up to date, or this machine.
    delete
        Whether what the source does not have is removed from the target.
    exclude
        Patterns of rsync to leave out.
    remote_version
        The version of the host's rsync; empty if it is unknown.
    """

    local: Path
    remote: str
    upload: bool
    delete: bool = False
    exclude: tuple[str, ...] = ()
    remote_version: tuple[int, ...] = ()


class Transport(Protocol):
    """A connection to a host: commands, copies and tunnels.

    Attributes
    ----------
    login
        How to log in.
    name
        What people call the host.
    new_key
        Whether the host's key was accepted without having been known before.
    """

    login: Login
    name: str
    new_key: bool

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
            If there is no connection in time.
        """

    def close(self) -> None:
        """Close it, and with it all that goes through it."""

    def run(
        self,
        command: Command,
        *,
        deadline: float,
        content: bytes | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        """Run a command to its end; an exit code other than 0 is a result, too.

        Parameters
        ----------
        command
            The command.
        deadline
            Seconds after which its process group is killed.
        content
            Its input; without one it has none.
        on_line
            Called with each line as it comes, by other threads.

        Raises
        ------
        DeadlineError
            If it has not ended in time.
        UnreachableError
            If there is no connection, or it was lost: the command may have run or not.
        """

    def copy(self, copy: Copy) -> None:
        """Copy a file or folder; what was begun when the connection was lost is continued.

        Raises
        ------
        RemoteError
            If it fails.
        """

    def resume(self, copy: Callable[[], object], title: str) -> None:
        """Call a function that copies between hosts, again when the connection was lost.

        Raises
        ------
        RemoteError
            If it fails.
        """

    def check_shell(self) -> None:
        """Refuse a host whose shell would disturb copies, as the last command showed it.

        Raises
        ------
        ShellError
            If it prints before a command, or reads of a command's input.
        """

    def forward(self, local: int, host: str, port: int) -> bool:
        """Forward a local port to one that the host reaches; return whether it can be.

        It is forwarded again when a lost connection is made again.
        """

    def stop_forwarding(self, local: int, host: str, port: int) -> None:
        """Stop forwarding a local port."""

    def shell_argv(self) -> list[str]:
        """Return the local command line that opens a terminal on the host."""

    def by_hand(self, *arguments: str) -> str:
        """Return the command line that a person would log in with."""
