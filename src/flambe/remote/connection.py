"""A connection to a host by the system's OpenSSH and rsync."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from flambe.remote import command as commands
from flambe.remote import resumable_copy, shell, transfer
from flambe.remote.result import Result
from flambe.remote.ssh_master import SshMaster
from flambe.remote.transport import Command, Copy, OnLine


class Connection(SshMaster):
    """A connection that is opened at first use, and again when it was lost.

    Parameters
    ----------
    login
        How to log in.
    name
        What people call the host.
    """

    def run(
        self,
        command: Command,
        *,
        deadline: float,
        content: bytes | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        """Run a command to its end: see :meth:`~flambe.remote.transport.Transport.run`."""
        return commands.run(self, command, deadline=deadline, content=content, on_line=on_line)

    def copy(self, copy: Copy) -> None:
        """Copy a file or folder: see :meth:`~flambe.remote.transport.Transport.copy`."""
        transfer.rsync(self, copy)

    def resume(self, copy: Callable[[], object], title: str) -> None:
        """Call a function that copies between hosts, again when the connection was lost."""
        resumable_copy.resume(copy, self, title)

    def check_shell(self) -> None:
        """Refuse a host whose shell would disturb copies.

        Raises
        ------
        ShellError
            If it printed before a command, or read of a command's input.
        """
        shell.refuse(self)

    def forward(self, local: int, host: str, port: int) -> bool:
        """Forward a local port to one that the host reaches; return whether it can be."""
        spec = _spec(local, host, port)
        if not self.control("forward", "-L", spec):
            return False
        self.forwards.append(spec)
        return True

    def stop_forwarding(self, local: int, host: str, port: int) -> None:
        """Stop forwarding a local port."""
        spec = _spec(local, host, port)
        self.forwards.remove(spec)
        with contextlib.suppress(OSError):
            self.control("cancel", "-L", spec)

    def shell_argv(self) -> list[str]:
        """Return the local command line that opens a terminal on the host."""
        return self.ssh("-t", "--", self.destination)


def _spec(local: int, host: str, port: int) -> str:
    """Return a forwarding as ``ssh -L`` takes it."""
    return f"127.0.0.1:{local}:{host}:{port}"
