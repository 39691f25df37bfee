"""A command on a host: its streams, its deadline, its end."""

from __future__ import annotations

import collections
import contextlib
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO

from flambe.errors import DeadlineError, RemoteError, UnreachableError
from flambe.logging import redact
from flambe.remote import scope
from flambe.remote.connection import Connection
from flambe.remote.result import Result

Take = Callable[[str, str], None]  # ("stdout" or "stderr", a line)

# Of what a command says, the last so many characters are kept.
KEPT = 8 * 1024 * 1024
# How long a group that was told to end may take.
GRACE = 5.0
# What sshd says when it takes no further session; nothing was started then.
_BUSY = "Session open refused by peer"

# Runs $1 without an input. Its own input is a lifeline: when that ends, because we hang up or are
# gone, the whole process group is killed.
_GUARDED = """exec 3<&0
sh -c "$1" </dev/null 3<&- & child=$!
{ read -r line <&3; kill -s KILL 0; } >/dev/null 2>&1 & guard=$!
exec 3<&-
wait $child; code=$?
kill $guard 2>/dev/null
exit $code"""


def run(
    connection: Connection,
    script: str,
    *,
    shown: str,
    deadline: float,
    content: bytes | None = None,
    take: Take | None = None,
) -> Result:
    """Run a shell script on a host, to its end.

    Parameters
    ----------
    connection
        To the host.
    script
        For ``sh``.
    shown
        What people call it.
    deadline
        Seconds after which its process group is killed.
    content
        Its input; without one it has none.
    take
        Called with each line as it comes, by other threads.

    Raises
    ------
    DeadlineError
        If it has not ended in time.
    UnreachableError
        If there is no connection, or it was lost: the command may have run or not.
    """
    inside = scope.current.get()
    if inside is not None and inside.cancelled:
        raise RemoteError(connection.name, f"interrupted before: {shown}")
    command = ["sh", "-c", script] if content is not None else ["sh", "-c", _GUARDED, "sh", script]
    end = time.monotonic() + deadline
    wait = 0.1
    while True:
        result = _once(connection, shlex.join(command), shown, end, content, take)
        if inside is not None and inside.cancelled:
            raise RemoteError(connection.name, f"interrupted during: {shown}")
        if result.code != 255:
            return result
        if not connection.control("check"):  # not alive(): a master that ends may greet still
            raise UnreachableError(
                connection.name, f"the connection was lost during: {shown}{_tail(result.stderr)}"
            )
        if _BUSY not in result.stderr or time.monotonic() + wait > end:
            return result
        time.sleep(wait)
        wait = min(2 * wait, 2.0)


def _tail(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "UNKNOWN port" not in line]
    return f"\n  | {lines[-1]}" if lines else ""


def _once(
    connection: Connection,
    command: str,
    shown: str,
    end: float,
    content: bytes | None,
    take: Take | None,
) -> Result:
    process = subprocess.Popen(
        [*connection.ssh("--", connection.destination), command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    inside = scope.current.get()
    token = inside.enter(lambda: _hang_up(process)) if inside is not None else 0
    out, err = _Reader(process, "stdout", take), _Reader(process, "stderr", take)
    try:
        if content is not None:
            _feed(process.stdin, content)
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        _hang_up(process)
        said = [redact.hide(text) for text in (shown, out.text(), err.text())]
        raise DeadlineError(connection.name, said[0], process.returncode, *said[1:]) from None
    except BaseException:
        _hang_up(process)
        raise
    finally:
        if inside is not None:
            inside.leave(token)
        with contextlib.suppress(OSError):
            process.stdin.close()
    result = Result(connection.name, shown, process.returncode, out.text(), err.text())
    if error := out.error or err.error:
        raise error
    return result


def _feed(stream: IO[bytes], content: bytes) -> None:
    # A command may end before it has read everything: its exit code tells.
    with contextlib.suppress(BrokenPipeError):
        stream.write(content)
        stream.flush()
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """End the lifeline, and with it the process group on the host."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Reader:
    """Reads a stream to its end in a thread of its own; both streams are drained together."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, take: Take | None) -> None:
        self.process, self.name, self.take = process, name, take
        self.lines: collections.deque[str] = collections.deque()
        self.size = 0
        #: What whoever took the lines raised; the command is ended then.
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._read, name=f"flambe-{name}", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            with getattr(self.process, self.name) as stream:
                for raw in stream:
                    self._keep(raw.decode("utf-8", errors="replace"))
        except BaseException as error:
            self.error = error
            _hang_up(self.process)

    def _keep(self, line: str) -> None:
        self.lines.append(line)
        self.size += len(line)
        while self.size > KEPT and len(self.lines) > 1:
            self.size -= len(self.lines.popleft())
        if self.take is not None:
            self.take(self.name, line.rstrip("\r\n"))

    def text(self) -> str:
        """Return what was read; a program left behind may hold the stream open: not waited for."""
        self.thread.join(GRACE)
        return "".join(list(self.lines))
