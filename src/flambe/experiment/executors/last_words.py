"""How the process of a variant ended that could not say so itself, and what it printed last.

A worker keeps a folder on its own host: a witness (:mod:`flambe.logging.witness`) writes there what
was printed last, Python what it did as a signal ended it, and ``os._exit`` who called it. The
folder is read on the same host by the driver of the run, or by a task that it sends there.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flambe._files import private_opener
from flambe.compile.component_errors import clean
from flambe.compile.schema import Schema
from flambe.errors import ComponentError
from flambe.experiment.executors.failures import Failure
from flambe.experiment.variants.expansion import Variant
from flambe.logging import capture, witness
from flambe.logging.console import home_folder

PATIENCE = 3.0  # seconds that a witness may take
LEFT_SECONDS = 120.0  # after which what nobody asked for is removed
MOST_LINES = 12  # that an error shows
_HOST = socket.gethostname().replace("@", "")
FATAL, EXIT = "fatal.txt", "exit.json"
_MARK = re.compile("\n?\0[0-9a-f]{16}\0")
_OUT_OF_MEMORY = re.compile(r"running low on memory|OutOfMemoryError")
_FATAL = re.compile(r"Fatal Python error: (.*)")
_FRAME = re.compile(r'File "(.*)", line (\d+) in (.*)')


@dataclass
class LastWords:
    """What a process left.

    Attributes
    ----------
    printed
        ``stdout`` and ``stderr`` → the last lines.
    status
        As of waitpid, where somebody saw it.
    exit
        How ``os._exit`` was called: ``(code, where)``.
    fatal
        What Python wrote as a signal ended it.
    out_of_memory
        Whether the kernel ended a process for want of memory meanwhile.
    """

    printed: dict[str, list[str]] = field(default_factory=dict)
    status: int | None = None
    exit: tuple[int, str] | None = None
    fatal: str = ""
    out_of_memory: bool = False


class Will:
    """The folder of this process, for the time that it lives."""

    def __init__(self) -> None:
        base = home_folder("cache", "last-words")
        _sweep(base)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}@{_HOST}@", dir=base))
        self._fatal = open(self.folder / FATAL, "w", encoding="utf-8", opener=private_opener)
        faulthandler.enable(self._fatal, all_threads=False)
        self._real_exit = os._exit
        os._exit = self._exit  # type: ignore[assignment]
        self._process = os.getpid()

    def _exit(self, status: int) -> None:
        if os.getpid() == self._process:  # a process that was forked ends so, too
            frame = traceback.extract_stack(limit=2)[0]
            where = f"{frame.filename}:{frame.lineno}, in {frame.name}:   {frame.line}"
            with contextlib.suppress(OSError, ValueError):
                text = json.dumps([int(status), where])
                (self.folder / EXIT).write_text(text, encoding="utf-8")
        self._real_exit(status)

    def revoke(self) -> None:
        """Leave nothing: the process ends in order."""
        os._exit = self._real_exit
        faulthandler.enable(all_threads=False)
        self._fatal.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove what processes left that nobody asked after: their run had ended."""
    for folder in base.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if time.time() - folder.stat().st_mtime < LEFT_SECONDS:
                continue
            pid, host, _ = folder.name.split("@")
            if host != _HOST:  # a home that hosts share
                continue
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


def read(folder: str) -> LastWords:
    """Return what a process of this host left, and remove it."""
    place = Path(folder)
    deadline = time.monotonic() + PATIENCE
    while not (place / witness.NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    words = LastWords()
    with contextlib.suppress(OSError, ValueError, KeyError):
        last = json.loads((place / witness.NAME).read_text(encoding="utf-8"))
        words.status, words.out_of_memory = last["status"], last["out_of_memory"]
        for name in ("stdout", "stderr"):
            lines = capture.lines_of(_MARK.sub("\n", last[name]))
            words.printed[name] = lines[1:] if name in last["cut"] else lines
    with contextlib.suppress(OSError, ValueError):
        code, where = json.loads((place / EXIT).read_text(encoding="utf-8"))
        words.exit = (code, where)
    with contextlib.suppress(OSError):
        words.fatal = (place / FATAL).read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(place, ignore_errors=True)
    return words


def unseen(lines: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Return the lines that came after those that were taken already."""
    for count in range(min(len(lines), len(taken)), 0, -1):
        if list(lines[:count]) == list(taken[-count:]):
            return list(lines[count:])
    # More was taken than the witness remembers: the last line that was taken is one of its own.
    for index in range(len(lines) - 1, -1, -1):
        tail = list(taken[-(index + 1) :])
        if taken and list(lines[index + 1 - len(tail) : index + 1]) == tail:
            return list(lines[index + 1 :])
    return list(lines)


def failure_of(variant: Variant, words: LastWords, ray_text: str, last: Sequence[str]) -> Failure:
    """Return what to tell of a variant whose process ended without a word."""
    how, where = _how(words, ray_text)
    config: Any = variant.config
    schema = config if isinstance(config, Schema) else None
    error = ComponentError(
        clean(how + printed_last(last)),
        schema.place if schema else None,
        f"running !{schema.tag}" if schema else f"running {variant.stage}",
        words.fatal,
        where,
    )
    return Failure(error, str(error))


def printed_last(lines: Sequence[str]) -> str:
    """Return the end of a message that shows what was printed last."""
    shown = [f"\n  | {line[:200]}" for line in lines[-MOST_LINES:]]
    return "".join(["\n  it printed last:", *shown]) if shown else "\n  it had printed nothing"


def _how(words: LastWords, ray_text: str) -> tuple[str, str]:
    """Return how a process ended, and where it was."""
    if words.exit is not None:
        code, where = words.exit
        return f"its process ended: it called os._exit({code})", where
    if fatal := _FATAL.search(words.fatal):
        frame = _FRAME.search(words.fatal)
        where = f"{frame[1]}:{frame[2]}, in {frame[3]}" if frame else ""
        name = f" ({_signal(words.status)})" if words.status is not None else ""
        return f"its process crashed: {fatal[1].strip()}{name}", where
    if _OUT_OF_MEMORY.search(ray_text):
        return f"its process was killed: its host ran out of memory\n  {_ADVICE}", ""
    if words.status is not None and os.WIFEXITED(words.status):
        return f"its process ended with exit code {os.WEXITSTATUS(words.status)}", ""
    known = _signal(words.status) if words.status is not None else ""
    if words.out_of_memory and known in ("", "SIGKILL"):
        return f"its process was killed (SIGKILL): the host ran out of memory\n  {_ADVICE}", ""
    if known:
        return f"its process was ended by a signal: {known}", ""
    return (
        "its process was killed, or exited, without a word: by SIGKILL, if it was not a library "
        "that it called",
        "",
    )


_ADVICE = "let fewer variants run at once (devices), or make them smaller"


def _signal(status: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"signal {os.WTERMSIG(status)}"
