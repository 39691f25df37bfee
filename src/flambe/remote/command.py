"""Commands on a host: their streams, their deadline, their end."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable

from flambe._process import quote_tail
from flambe.errors import DeadlineError, RemoteError, UnreachableError
from flambe.logging import redact
from flambe.remote import cancel_scope, shell
from flambe.remote.result import Result
from flambe.remote.ssh_master import SshMaster
from flambe.remote.transport import Command, OnLine

# Of the output of a command, the last so many characters are kept.
KEPT = 8 * 1024 * 1024
# Seconds that a process group has to end once its lifeline was closed.
GRACE = 5.0
# What sshd prints when it accepts no further session; nothing was started then.
_BUSY = "Session open refused by peer"


def run(
    master: SshMaster,
    command: Command,
    *,
    deadline: float,
    content: bytes | None = None,
    on_line: OnLine | None = None,
) -> Result:
    """Run a command on a host, to its end; it waits as long as sshd accepts no further session.

    Raises
    ------
    DeadlineError
        If it has not ended in time.
    UnreachableError
        If there is no connection, or it was lost: the command may have run or not.
    ShellError
        If the shell of the host did not run it.
    """
    scope = cancel_scope.current.get()
    if scope is not None and scope.cancelled:
        raise RemoteError(master.name, f"interrupted before: {command}")
    end = time.monotonic() + deadline
    wait = 0.1
    while True:
        result, frame = _run_once(master, command, end, content, on_line)
        if scope is not None and scope.cancelled:
            raise RemoteError(master.name, f"interrupted during: {command}")
        if result.code != 255:
            if not frame.begun:
                raise shell.not_run(master, frame, result.stdout + result.stderr)
            return result
        if not master.control("check"):  # not alive(): a master that ends may greet still
            raise UnreachableError(
                master.name, f"the connection was lost during: {command}{_reason(result.stderr)}"
            )
        if _BUSY not in result.stderr or time.monotonic() + wait > end:
            if not frame.begun and _BUSY not in result.stderr:
                raise shell.not_run(master, frame, result.stdout + result.stderr)
            return result
        time.sleep(wait)
        wait = min(2 * wait, 2.0)


def _reason(stderr: str) -> str:
    """Return the last relevant line of what ssh printed."""
    lines = [line for line in stderr.splitlines() if "UNKNOWN port" not in line]
    return quote_tail("\n".join(lines), 1)


def _run_once(
    master: SshMaster,
    command: Command,
    end: float,
    content: bytes | None,
    on_line: OnLine | None,
) -> tuple[Result, shell.Frame]:
    frame = shell.Frame()
    script = frame.command(command.script, has_input=content is not None)
    process = subprocess.Popen(
        [*master.ssh("--", master.destination), script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    limit = min(end, time.monotonic() + shell.START)
    out = _Reader(process, "stdout", on_line, frame)
    err = _Reader(process, "stderr", on_line, frame)
    with cancel_scope.entered(lambda: _hang_up(process)):
        try:
            _await_end(process, frame, out.begins, content, limit, end)
        except subprocess.TimeoutExpired:
            begun = frame.begun
            _hang_up(process)
            if not begun and (limit < end or frame.noise):
                raise shell.waits(master, frame) from None
            texts = [redact.hide(text) for text in (str(command), out.text(), err.text())]
            raise DeadlineError(master.name, texts[0], process.returncode, *texts[1:]) from None
        except BaseException:
            _hang_up(process)
            raise
        finally:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
    result = Result(master.name, str(command), process.returncode, out.text(), err.text())
    if error := out.error or err.error:
        raise error
    frame.record(master)
    return result, frame


def _await_end(
    process: subprocess.Popen[bytes],
    frame: shell.Frame,
    begins: threading.Event,
    content: bytes | None,
    limit: float,
    end: float,
) -> None:
    """Give a process its input, and wait for its end.

    Parameters
    ----------
    process, frame, content
        The process, the frame of its command, and its input.
    begins
        Set when the command begins.
    limit, end
        When it has to have begun, and ended, by the monotonic clock.

    Raises
    ------
    subprocess.TimeoutExpired
        If it has not begun or not ended in time.
    """
    assert process.stdin is not None
    _feed(process, frame.preamble + (content or b""), lambda: end if frame.begun else limit)
    if content is not None:
        process.stdin.close()
    while not begins.wait(shell.AGAIN) and time.monotonic() < limit:
        if content is None:
            _feed(process, frame.preamble, lambda: limit)
    process.wait(max(0.0, (end if begins.is_set() else limit) - time.monotonic()))


def _feed(process: subprocess.Popen[bytes], content: bytes, limit: Callable[[], float]) -> None:
    """Write the input of a command, which may end before it has read all of it."""
    assert process.stdin is not None
    try:
        # A thread that hangs up closes the original; its number may be another file's then.
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
            except BrokenPipeError:  # its exit code says why
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
        self,
        process: subprocess.Popen[bytes],
        name: str,
        on_line: OnLine | None,
        frame: shell.Frame,
    ) -> None:
        self.process, self.name, self.on_line = process, name, on_line
        self.frame, self.position = frame, shell.BEFORE
        #: Set when the command begins, or nothing more can come.
        self.begins = threading.Event()
        self.lines: collections.deque[str] = collections.deque()
        self.size = 0
        #: What :attr:`on_line` raised; the command is ended then.
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
        if self.on_line is not None:
            self.on_line(self.name, line.rstrip("\r\n"))

    def text(self) -> str:
        """Return what was read; a program left behind may hold the stream open: not waited for.

        Where the command did not begin, it is what came instead.
        """
        self.thread.join(GRACE)
        if self.position == shell.BEFORE:
            return self.frame.noise.get(self.name, "")
        return "".join(list(self.lines))
