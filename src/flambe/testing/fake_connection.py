"""A connection that runs nothing: it records what it is asked for, and gives scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flambe.errors import RemoteError, UnreachableError
from flambe.remote import Address, Command, Copy, Login, Result
from flambe.remote.host import WRITE
from flambe.remote.transport import OnLine

# What one answer may be, beside a result: an error that is raised, or a function of the command.
Reply = Callable[["RecordedCommand"], str]


@dataclass(frozen=True)
class RecordedCommand(Command):
    """A command that a connection was asked to run.

    Attributes
    ----------
    argv, env, folder, title
        See :class:`~flambe.remote.Command`.
    content
        Its input; None without one.
    """

    content: bytes | None = None


@dataclass
class Answer:
    """What a command is answered: its output and exit code, or an error."""

    stdout: str | Reply = ""
    stderr: str = ""
    code: int = 0
    error: RemoteError | None = None


@dataclass
class _Script:
    """The answers to the commands that begin alike; the last one is repeated."""

    start: tuple[str, ...] | str
    answers: list[Answer] = field(default_factory=list)

    @property
    def precision(self) -> tuple[bool, int]:
        """Which script counts where several match: the one with the largest value."""
        return isinstance(self.start, str), len(self.start)

    def matches(self, command: Command) -> bool:
        if isinstance(self.start, str):
            return str(command).startswith(self.start)
        return command.argv[: len(self.start)] == self.start

    def next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class FakeConnection:
    r"""A connection to a host that does not exist.

    It is what a :class:`~flambe.remote.Host` is made with in tests. Each command succeeds and
    prints nothing, unless :meth:`answer` says otherwise. Files that are written by
    :meth:`Host.put <flambe.remote.Host.put>` are kept, and read again by ``cat``.

    Parameters
    ----------
    name
        What people call the host.
    login
        How to log in; an address of its own by default.

    Attributes
    ----------
    commands
        The commands that were run, in order.
    copies
        The copies that were made by ``Host.send`` and ``Host.fetch``.
    files
        The files that were written: path → content.
    forwarded
        The tunnels that exist: ``(local port, host, port)``.
    is_open
        Whether it is open.

    Examples
    --------
    >>> connection = FakeConnection("gpu-1")
    >>> connection.answer(["nproc"], "8\n")
    >>> Host(connection).run(["nproc", "--all"]).stdout
    '8\n'
    >>> connection.argvs
    [['nproc', '--all']]
    """

    def __init__(self, name: str = "host", login: Login | None = None) -> None:
        self.name = name
        self.login = login or Login(Address("192.0.2.1"), "user", Path("known_hosts"))
        self.new_key = False
        self.is_open = False
        self.commands: list[RecordedCommand] = []
        self.copies: list[Copy] = []
        self.files: dict[str, bytes] = {}
        self.forwarded: list[tuple[int, str, int]] = []
        self._scripts: list[_Script] = []
        self._unreachable: RemoteError | None = None
        self._lock = threading.Lock()  # hosts are used by threads

    # -- what a test says -------------------------------------------------------------------------

    def answer(
        self,
        start: Sequence[str] | str,
        stdout: str | Reply = "",
        *,
        stderr: str = "",
        code: int = 0,
        error: RemoteError | None = None,
    ) -> None:
        """Script the answer to some commands.

        The longest match counts. Several answers to the same commands are given one after another,
        and the last one from then on.

        Parameters
        ----------
        start
            The first words of the commands, as a list; none for every command. Or the text that
            they start with as people call them: a line of ``setup_cmds``, say.
        stdout
            What it prints, or a function of the command that returns that.
        stderr
            What it prints to its error stream.
        code
            Its exit code.
        error
            An error that is raised instead: an :class:`~flambe.errors.UnreachableError`, say.
        """
        key = start if isinstance(start, str) else tuple(start)
        script = next((script for script in self._scripts if script.start == key), None)
        if script is None:
            script = _Script(key)
            self._scripts.append(script)
        script.answers.append(Answer(stdout, stderr, code, error))

    def be_unreachable(self, reason: str = "no connection within 30 s") -> None:
        """Let the host be unreachable from now on."""
        self._unreachable = UnreachableError(self.name, reason)

    @property
    def argvs(self) -> list[list[str]]:
        """The commands that were run, as lists of words."""
        return [list(command.argv) for command in self.commands]

    # -- what a host asks for ---------------------------------------------------------------------

    def open(self, seconds: float = 30.0, *, patient: bool = False) -> None:
        """Be open from now on.

        Raises
        ------
        UnreachableError
            If the host is unreachable.
        """
        if self._unreachable is not None:
            raise self._unreachable
        self.is_open = True

    def close(self) -> None:
        """Be closed from now on."""
        self.is_open = False

    def run(
        self,
        command: Command,
        *,
        deadline: float,
        content: bytes | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        """Record a command, and return its answer."""
        recorded = RecordedCommand(
            command.argv, command.env, command.folder, command.title, content
        )
        with self._lock:
            self.commands.append(recorded)
            answer = self._answer(recorded)
        if answer.error is not None:
            raise answer.error
        stdout = answer.stdout if isinstance(answer.stdout, str) else answer.stdout(recorded)
        if on_line is not None:
            for stream, text in (("stdout", stdout), ("stderr", answer.stderr)):
                for line in text.splitlines():
                    on_line(stream, line)
        return Result(self.name, str(command), answer.code, stdout, answer.stderr)

    def _answer(self, command: RecordedCommand) -> Answer:
        """Return the scripted answer to a command, or that of its files."""
        argv = command.argv
        if argv[:3] == ("sh", "-c", WRITE):
            self.files[argv[4]] = command.content or b""
        matches = [script for script in self._scripts if script.matches(command)]
        if matches:
            return max(matches, key=lambda script: script.precision).next()
        if argv[0] == "cat" and argv[-1] in self.files:
            return Answer(self.files[argv[-1]].decode(errors="replace"))
        return Answer()

    def copy(self, copy: Copy) -> None:
        """Record a copy; nothing is copied."""
        with self._lock:
            self.copies.append(copy)

    def resume(self, copy: Callable[[], object], title: str) -> None:
        """Call a function that copies between hosts."""
        copy()

    def check_shell(self) -> None:
        """Accept the shell of the host."""

    def forward(self, local: int, host: str, port: int) -> bool:
        """Record a tunnel."""
        self.forwarded.append((local, host, port))
        return True

    def stop_forwarding(self, local: int, host: str, port: int) -> None:
        """Remove a tunnel."""
        self.forwarded.remove((local, host, port))

    def shell_argv(self) -> list[str]:
        """Return a command line that says where a terminal would be."""
        return ["echo", f"a terminal on {self.name}"]

    def by_hand(self, *arguments: str) -> str:
        """Return the command line that a person would log in with."""
        return " ".join(["ssh", f"{self.login.user}@{self.login.address}", *arguments])
