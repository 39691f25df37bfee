"""Captures what a component prints and logs, live, line by line."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import secrets
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flambe.logging import witness
from flambe.logging.plain import plain

OnLine = Callable[[str, str], None]  # (level, line)

#: The level of an unfinished line, such as a progress bar. The next one of the same source replaces
#: it, and none of them goes to a log.
PROGRESS = "progress"
PROGRESS_PERIOD = 0.5  # seconds between two states of a line
LONGEST_LINE = 16_000_000  # characters; a longer one is taken in parts
SETTLE_SECONDS = 2.0

# The engine that runs components has messages of its own: they are not the components'.
_ENGINE = "flambe.experiment"


class _Handler(logging.Handler):
    def __init__(self, on_line: OnLine, others: list[logging.Handler]) -> None:
        super().__init__(logging.INFO)
        self.on_line = on_line
        self.others = others
        self.taking = False  # handlers hold a lock while they emit
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_ENGINE):
            for other in self.others:
                other.handle(record)
            return
        if record.name.partition(".")[0] == "ray" and record.levelno < logging.WARNING:
            return
        if _is_printed(record):
            return
        if self.taking:  # on_line may log something itself
            return
        self.taking = True
        try:
            for line in self.format(record).splitlines():
                self.on_line(record.levelname, _text(line))
        except Exception:
            self.handleError(record)
        finally:
            self.taking = False


def _is_printed(record: logging.LogRecord) -> bool:
    """Whether a library prints its records with its own handler: they are captured as output."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        for handler in logger.handlers:
            if (
                isinstance(handler, logging.StreamHandler)
                and handler.stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
                and record.levelno >= handler.level
            ):
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _text(line: str) -> str:
    """Return a line as text that can be encoded and shown; half a surrogate pair is escaped."""
    text = plain(line)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def logged(on_line: OnLine) -> Iterator[None]:
    """Capture what is logged, INFO and up."""
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    handler = _Handler(on_line, others)
    root.handlers[:] = [handler]
    root.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        root.handlers[:] = others
        root.setLevel(level)


class _Assembly:
    """Assembles lines from pieces of text, and reports unfinished ones now and then."""

    def __init__(self, on_line: OnLine, level: str) -> None:
        self.on_line, self.level = on_line, level
        self.rest = self.reported = ""
        self.due = time.monotonic() + PROGRESS_PERIOD

    def feed(self, text: str) -> None:
        if "\n" in text:
            *lines, self.rest = (self.rest + text).split("\n")
            for line in lines:
                self._finish_line(line)
        else:
            self.rest += text
        # A progress bar rewrites its line: its last state is kept.
        if "\r" in self.rest:
            last = self.rest.rstrip("\r").rfind("\r")
            self.rest = self.rest[last + 1 :]
        if len(self.rest) > LONGEST_LINE:
            self.end()

    def report(self) -> None:
        """Report what is on the line, if it changed and the last report is old enough."""
        now = time.monotonic()
        if self.rest and self.rest != self.reported and now >= self.due:
            self.reported, self.due = self.rest, now + PROGRESS_PERIOD
            self.on_line(PROGRESS, _text(self._last(self.rest[-1000:])))

    def end(self) -> None:
        if self.rest:
            self._finish_line(self.rest)
            self.rest = ""

    @staticmethod
    def _last(line: str) -> str:
        return line.rstrip("\r").rpartition("\r")[2]

    def _finish_line(self, line: str) -> None:
        self.reported, self.due = "", time.monotonic() + PROGRESS_PERIOD
        text = _text(self._last(line))
        if text or not line.rstrip("\r"):  # a line of nothing but escape sequences is none
            self.on_line(self.level, text)


def lines_of(text: str) -> list[str]:
    """Return the lines of what was printed, as they are taken."""
    lines: list[str] = []
    assembly = _Assembly(lambda level, line: lines.append(line), "")
    assembly.feed(text)
    assembly.end()
    return lines


class _Lines(io.TextIOBase):
    """A text stream that gives on whole lines."""

    def __init__(self, on_line: OnLine, level: str) -> None:
        self.assembly = _Assembly(on_line, level)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.assembly.feed(text)
        self.assembly.report()
        return len(text)

    def end(self) -> None:
        self.assembly.end()


@contextlib.contextmanager
def printed_here(on_line: OnLine) -> Iterator[None]:
    """Capture what Python code in this process prints, not what other programs print."""
    out, err = _Lines(on_line, "stdout"), _Lines(on_line, "stderr")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), logged(on_line):
        try:
            yield
        finally:
            out.end()
            err.end()


class Printed:
    """Captures what this process and the programs that it starts print: file descriptors 1 and 2.

    It is for processes that run components only. :meth:`start` and :meth:`stop` may be called again
    and again; :meth:`stop` and :meth:`settle` return when all that was printed has been taken.

    Parameters
    ----------
    on_line
        Called with the level and the text of each line.
    folder
        Where the witness writes what was printed last, if this process dies: see :mod:`.witness`.
    """

    def __init__(self, on_line: OnLine, folder: Path | None = None) -> None:
        self.on_line = on_line
        self.folder = folder
        self._streams: list[_Stream] = []
        self._witness: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start capturing."""
        _flush()
        self._streams = [_Stream(1, "stdout", self.on_line), _Stream(2, "stderr", self.on_line)]
        if self.folder is not None:
            self._witness = _place_witness(self.folder, self._streams)
        for stream in self._streams:
            stream.start()

    def settle(self) -> None:
        """Wait until all output so far was reported; an unfinished line counts as a line."""
        _flush()
        for stream in self._streams:
            stream.mark()
        deadline = time.monotonic() + SETTLE_SECONDS
        for stream in self._streams:
            stream.marked.wait(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Restore the descriptors, and wait until all output so far was reported."""
        _flush()
        for stream in self._streams:
            stream.give_back()
        deadline = time.monotonic() + 1.0
        for stream in self._streams:
            # A program that was left behind may hold the pipe open: it is not waited for.
            stream.thread.join(max(0.0, deadline - time.monotonic()))
        if self._witness is not None:
            self._witness.kill()
            self._witness.wait()
        self._streams, self._witness = [], None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A component may have closed them, or put something else there.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            stream.flush()


class _Stream:
    """A file descriptor that is a pipe, for the time being, and the thread that reads it."""

    def __init__(self, descriptor: int, level: str, on_line: OnLine) -> None:
        self.descriptor = descriptor
        self.read, self.write = os.pipe()
        self.assembly = _Assembly(on_line, level)
        self.marked = threading.Event()
        # Text that no program prints, and that Python's text layer passes on unchanged.
        self._mark = f"\0{secrets.token_hex(8)}\0"
        self.thread = threading.Thread(target=self._run, name=f"flambe-{level}", daemon=True)

    def start(self) -> None:
        self._saved = os.dup(self.descriptor)
        os.dup2(self.write, self.descriptor)
        self.thread.start()

    def mark(self) -> None:
        """Send a mark through the pipe: what the reader saw before it was printed before.

        A pipe cannot be asked whether it is empty: its reader may hold a piece that it has not
        reported yet. ``test_to_settle_is_to_have_taken_all_even_what_has_no_end`` fails without it.
        """
        self.marked.clear()
        os.dup2(self.write, self.descriptor)  # it may have been closed or replaced
        os.write(self.write, self._mark.encode())

    def give_back(self) -> None:
        os.dup2(self._saved, self.descriptor)
        os.close(self._saved)
        os.close(self.write)

    def _run(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pending = ""
        while True:
            if self.assembly.rest and not select.select([self.read], [], [], PROGRESS_PERIOD)[0]:
                self.assembly.report()
            data = os.read(self.read, witness.CHUNK)
            text = pending + decoder.decode(data)
            before, mark, text = text.rpartition(self._mark)
            if mark:
                self.assembly.feed(before.replace(self._mark, ""))
                self.assembly.end()
                self.marked.set()
            # A mark may be cut between two reads: its beginning waits for the rest.
            cut = text.rfind("\0", -len(self._mark))
            pending = text[cut:] if cut >= 0 and self._mark.startswith(text[cut:]) else ""
            self.assembly.feed(text[: len(text) - len(pending)])
            self.assembly.report()
            if not data:
                break
        self.assembly.feed(pending)
        self.assembly.end()
        os.close(self.read)


def _place_witness(folder: Path, streams: list[_Stream]) -> subprocess.Popen[bytes]:
    """Put a process between the pipes and their readers that survives this one.

    A process that is killed cannot report its last output: what it had printed and not yet read
    is gone with its pipes. ``test_a_witness_keeps_the_last_words`` kills one in several ways.
    """
    ends: list[int] = []
    for stream in streams:
        read, write = os.pipe()
        ends += [stream.read, write]
        stream.read = read
    command = [sys.executable, "-I", "-S", witness.__file__, str(folder)]
    command += [str(os.getpid()), *map(str, ends)]
    # Its own session: it is not killed with the group of this process.
    process = subprocess.Popen(
        command,
        pass_fds=ends,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in ends:
        os.close(end)
    return process
