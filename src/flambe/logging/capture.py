"""What a component prints and logs, taken live, line by line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

Take = Callable[[str, str], None]  # (level, line)


# What runs components speaks for itself: its messages are not theirs.
_ENGINE = "flambe.experiment"


class _Handler(logging.Handler):
    def __init__(self, take: Take, others: list[logging.Handler]) -> None:
        super().__init__(logging.INFO)
        self.take = take
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
        if self.taking:  # whoever takes the line may log it
            return
        self.taking = True
        try:
            for line in self.format(record).splitlines():
                self.take(record.levelname, line)
        except Exception:
            self.handleError(record)
        finally:
            self.taking = False


@contextlib.contextmanager
def logged(take: Take) -> Iterator[None]:
    """Take what is logged, INFO and up."""
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    handler = _Handler(take, others)
    root.handlers[:] = [handler]
    root.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        root.handlers[:] = others
        root.setLevel(level)


class _Lines(io.TextIOBase):
    """A text stream that gives on whole lines."""

    def __init__(self, take: Take, level: str) -> None:
        self.take, self.level, self.rest = take, level, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.take(self.level, line)
        return len(text)

    def end(self) -> None:
        if self.rest:
            self.take(self.level, self.rest)
            self.rest = ""


@contextlib.contextmanager
def printed_here(take: Take) -> Iterator[None]:
    """Take what Python code in this process prints; what programs print passes by."""
    out, err = _Lines(take, "stdout"), _Lines(take, "stderr")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), logged(take):
        try:
            yield
        finally:
            out.end()
            err.end()


class Printed:
    """Takes all that this process and the programs that it starts print: file descriptors 1 and 2.

    It is for processes that run components only. :meth:`start` and :meth:`stop` may be called again
    and again; :meth:`stop` returns when all that was printed has been taken.
    """

    def __init__(self, take: Take) -> None:
        self.take = take
        self._saved: list[tuple[int, int]] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to take."""
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, level in ((1, "stdout"), (2, "stderr")):
            read, write = os.pipe()
            self._saved.append((descriptor, os.dup(descriptor)))
            os.dup2(write, descriptor)
            os.close(write)
            thread = threading.Thread(target=self._read, args=(read, level), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Give the descriptors back, and wait for what was printed before."""
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, saved in self._saved:
            os.dup2(saved, descriptor)
            os.close(saved)
        deadline = time.monotonic() + 1.0
        for thread in self._threads:
            # A program that was left behind may hold the pipe open: it is not waited for.
            thread.join(max(0.0, deadline - time.monotonic()))
        self._saved, self._threads = [], []

    def _read(self, descriptor: int, level: str) -> None:
        with open(descriptor, encoding="utf-8", errors="replace", newline="\n") as stream:
            for line in stream:
                # A progress bar rewrites its line: its last state is kept.
                self.take(level, line.rstrip("\n").rstrip("\r").rpartition("\r")[2])
