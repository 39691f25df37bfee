"""The client of the agent that runs on a host."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from flambe import _nvidia_smi
from flambe._process import quote_tail
from flambe.errors import CommandError, RemoteError, UnreachableError
from flambe.remote.agent.protocol import Request
from flambe.remote.host import Host
from flambe.remote.result import Result

A = TypeVar("A")

_AGENT = Path(__file__).parent / "agent"
_MAIN = """import sys
from flambe.remote.agent.__main__ import main
sys.exit(main())
"""
# The exit codes of a shell that finds no program, and of python3 without its archive.
_NO_PROGRAM, _NO_FILE = 127, 2
# The exit code of the agent when there is nothing to follow.
_NO_RUN = 3
# For how long a client that follows a log tries to connect again, in seconds.
COME_BACK = 600


@functools.cache
def archive() -> bytes:
    """Return the agent as a Python archive: the same bytes everywhere."""
    files = {"__main__.py": _MAIN, "flambe/__init__.py": "", "flambe/remote/__init__.py": ""}
    for path in sorted(_AGENT.rglob("*.py")):
        name = path.relative_to(_AGENT).as_posix()
        files[f"flambe/remote/agent/{name}"] = path.read_text(encoding="utf-8")
    files["flambe/_nvidia_smi.py"] = Path(_nvidia_smi.__file__).read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, text in files.items():
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


class Agent:
    """Sends requests to the agent of one host, and ships the agent if it is missing.

    Parameters
    ----------
    host
        The host.
    root
        flambe's folder there, from the home of the user.
    """

    def __init__(self, host: Host, root: str = ".flambe") -> None:
        self.host = host
        self.root = root
        digest = hashlib.sha256(archive()).hexdigest()[:12]
        self.path = f"{root}/agent/{digest}.pyz"

    def ask(self, request: Request[A], *, deadline: float = 60.0, repeat: bool = True) -> A:
        """Send it a request, and return its answer.

        Parameters
        ----------
        request
            What is asked: see :mod:`flambe.remote.agent.protocol`.
        deadline
            Seconds that the answer may take.
        repeat
            Whether the request is sent again when the connection is lost.

        Raises
        ------
        RemoteError
            If it fails, or the host has no ``python3``.
        """
        payload = request.to_json()
        return request.read_answer(self._send(request.verb, payload, deadline, repeat))

    def _send(
        self, verb: str, payload: Mapping[str, object], deadline: float, repeat: bool
    ) -> object:
        """Send it a request, and return the JSON of its answer; ship the agent if it is missing."""
        for attempt in (0, 1):
            done = self.host.run(
                self.argv(verb),
                content=json.dumps(payload),
                deadline=deadline,
                repeat=repeat,
                check=False,
                shown=f"flambe's agent: {verb}",
            )
            if done.code == 0:
                return self._answer(done)
            if done.code == _NO_PROGRAM:
                raise RemoteError(
                    self.host.name, "python3 is not installed: install it on the host"
                )
            if "SyntaxError: " in done.stderr:
                raise RemoteError(
                    self.host.name,
                    "its python3 is too old: install 3.10 or newer on the host",
                )
            if done.code != _NO_FILE or attempt:
                break
            self.host.put(archive(), self.path)
        with self.host.space(self.root):
            done.checked()
        raise AssertionError("unreachable")

    def _answer(self, done: Result) -> object:
        """Return what the agent has answered.

        Raises
        ------
        RemoteError
            If it is not JSON: the host's interpreter prints something else, too.
        """
        try:
            return json.loads(done.stdout)
        except ValueError:
            output = quote_tail(done.stdout.strip() or "nothing", 4)
            raise RemoteError(
                self.host.name, f"its python3 prints something else than JSON:{output}"
            ) from None

    def argv(self, command: str, *arguments: str) -> list[str]:
        """Return the command line of the agent."""
        return ["python3", "-I", self.path, "--root", self.root, command, *arguments]

    def follow(
        self,
        name: str,
        on_line: Callable[[str], None],
        *,
        notify: Callable[[str], None] = lambda text: None,
        once: bool = False,
    ) -> int | None:
        """Pass each line of a supervised process to a function, until the process has ended.

        A lost connection is made again, and the log continues where it was.

        Parameters
        ----------
        name
            The name of the process.
        on_line
            Called with each line.
        notify
            Called with a message when the connection is lost, and when it is there again.
        once
            Whether to return at the end of what the process has printed until now.

        Returns
        -------
        int or None
            Its exit code; None if that is unknown, or was not waited for.

        Raises
        ------
        UnreachableError
            If there is no connection for ten minutes.
        RemoteError
            If there is no such process.
        """
        offset = 0
        end: list[str] = []

        def read(stream: str, text: str) -> None:
            nonlocal offset
            if stream != "stdout":
                return
            head, _, rest = text.partition(" ")
            if head == "end":
                end.append(rest)
            else:
                offset = int(head)
                on_line(rest)

        while not end:
            command = self.argv("follow", name, "--offset", str(offset), *["--once"] * once)
            try:
                self.host.run(
                    command, deadline=float("inf"), take=read, shown="flambe's agent: follow"
                )
                if once:
                    return None
            except (UnreachableError, CommandError) as error:
                self._recover(error, notify)
        return int(end[0]) if end[0].lstrip("-").isdigit() else None

    def _recover(self, error: RemoteError, notify: Callable[[str], None]) -> None:
        """Make it possible to follow again, or raise the error."""
        code = error.code if isinstance(error, CommandError) else 255
        if code == _NO_RUN:
            raise RemoteError(self.host.name, "nothing was run there yet") from None
        if code == _NO_FILE and self.host.run(["test", "-e", self.path], check=False).code:
            self.host.put(archive(), self.path)
        elif code == 255:
            notify(f"{self.host.name}: the connection was lost; trying again")
            self.host.connection.open(COME_BACK)
            notify(f"{self.host.name}: connected again")
        else:
            raise error
