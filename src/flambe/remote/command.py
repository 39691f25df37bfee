"""A command on a host: its streams, its deadline, its end."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable

from flambe.errors import DeadlineError, RemoteError, UnreachableError
from flambe.logging import redact
from flambe.remote import cancel_scope, shell
from flambe.remote.connection import Connection
from flambe.remote.result import Result

Take = Callable[[str, str], None]  # ("stdout" or "stderr", a line)

# Of what a command says, the last so many characters are kept.
KEPT = 8 * 1024 * 1024
# How long a group that was told to end may take.
GRACE = 5.0
# What sshd says when it takes no further session; nothing was started then.
_BUSY = "Session open refused by peer"


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
    ShellError
        If the shell of the host did not run it.
    """
    inside = cancel_scope.current.get()
    if inside is not None and inside.cancelled:
        raise RemoteError(connection.name, f"interrupted before: {shown}")
    end = time.monotonic() + deadline
    wait = 0.1
    while True:
        result, frame = _once(connection, script, shown, end, content, take)
        if inside is not None and inside.cancelled:
            raise RemoteError(connection.name, f"interrupted during: {shown}")
        if result.code != 255:
            return result if frame.begun else _not_run(connection, frame, result)
        if not connection.control("check"):  # not alive(): a master that ends may greet still
            raise UnreachableError(
                connection.name, f"the connection was lost during: {shown}{_tail(result.stderr)}"
            )
        if _BUSY not in result.stderr or time.monotonic() + wait > end:
            if not frame.begun and _BUSY not in result.stderr:
                return _not_run(connection, frame, result)
            return result
        time.sleep(wait)
        wait = min(2 * wait, 2.0)


def _not_run(connection: Connection, frame: shell.Frame, result: Result) -> Result:
    """Name the shell that ended before it ran a command."""
    raise shell.not_run(connection, frame, result.stdout + result.stderr)


def _tail(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "UNKNOWN port" not in line]
    return f"\n  | {lines[-1]}" if lines else ""


def _once(
    connection: Connection,
    script: str,
    shown: str,
    end: float,
    content: bytes | None,
    take: Take | None,
) -> tuple[Result, shell.Frame]:
    frame = shell.Frame()
    command = frame.command(script, has_input=content is not None)
    process = subprocess.Popen(
        [*connection.ssh("--", connection.destination), command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    inside = cancel_scope.current.get()
    token = inside.enter(lambda: _hang_up(process)) if inside is not None else 0
    out, err = _Reader(process, "stdout", take, frame), _Reader(process, "stderr", take, frame)
    limit = min(end, time.monotonic() + shell.START)
    try:
        _feed(process, frame.preamble + (content or b""), lambda: end if frame.begun else limit)
        if content is not None:
            process.stdin.close()
        while not out.begins.wait(shell.AGAIN) and time.monotonic() < limit:
            if content is None:
                _feed(process, frame.preamble, lambda: limit)
        process.wait(max(0.0, (end if out.begins.is_set() else limit) - time.monotonic()))
    except subprocess.TimeoutExpired:
        begun = frame.begun
        _hang_up(process)
        if not begun and (limit < end or frame.noise):
            raise shell.waits(connection, frame) from None
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
    frame.tell(connection)
    return result, frame


def _feed(process: subprocess.Popen[bytes], content: bytes, limit: Callable[[], float]) -> None:
    """Write the input of a command, which may end before it has read everything."""
    assert process.stdin is not None
    try:
        # Whoever hangs up closes the other one: its number may be another file's then.
        descriptor = os.dup(process.stdin.fileno())
    except (OSError, ValueError):  # it is closed
        return
    try:
        os.set_blocking(descriptor, False)
        _write(descriptor, content, process, limit)
    finally:
        os.close(descriptor)


def _write(
    descriptor: int, content: bytes, process: subprocess.Popen[bytes], limit: Callable[[], float]
) -> None:
    room, rest = select.poll(), memoryview(content)
    room.register(descriptor, select.POLLOUT)
    while rest and process.poll() is None:
        if time.monotonic() > limit():
            raise subprocess.TimeoutExpired(process.args, 0)
        if room.poll(200):
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:  # its exit code tells
                return


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

    def __init__(
        self, process: subprocess.Popen[bytes], name: str, take: Take | None, frame: shell.Frame
    ) -> None:
        self.process, self.name, self.take = process, name, take
        self.frame, self.position = frame, shell.BEFORE
        #: Set when the command begins, or nothing more can come.
        self.begins = threading.Event()
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
        finally:
            self.begins.set()

    def _keep(self, line: str) -> None:
        self.position, line = self.frame.read(self.name, self.position, line)
        if self.position != shell.BEFORE:
            self.begins.set()
        if not line:
            return
        self.lines.append(line)
        self.size += len(line)
        while self.size > KEPT and len(self.lines) > 1:
            self.size -= len(self.lines.popleft())
        if self.take is not None:
            self.take(self.name, line.rstrip("\r\n"))

    def text(self) -> str:
        """Return what was read; a program left behind may hold the stream open: not waited for.

        Where the command did not begin, it is what came instead.
        """
        self.thread.join(GRACE)
        if self.position == shell.BEFORE:
            return self.frame.noise.get(self.name, "")
        return "".join(list(self.lines))
