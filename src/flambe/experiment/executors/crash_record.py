"""How the process of a variant ended that could not report it, and what it printed last.

A worker keeps a folder on its own host, the crash folder: a witness (:mod:`flambe.logging.witness`)
writes there what was printed last, Python the traceback when a signal ends it, and ``os._exit``
who called it. The folder is read on the same host by the driver of the run, or by a task that the
driver sends there.
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

from flambe._files import private_opener
from flambe._retry import poll
from flambe.compile.component_errors import clean
from flambe.compile.schema import Schema
from flambe.errors import ComponentError
from flambe.experiment.executors.failures import Failure
from flambe.experiment.variants.expansion import Variant
from flambe.logging import capture, witness
from flambe.logging.console import home_folder

WITNESS_SECONDS = 3.0  # that a witness may take to write
ABANDONED_SECONDS = 120.0  # after which a folder that no driver has read is removed
QUOTED_LINES = 12  # of what was printed, in an error
_HOST = socket.gethostname().replace("@", "")
FATAL, EXIT = "fatal.txt", "exit.json"
_MARK = re.compile("\n?\0[0-9a-f]{16}\0")
_OUT_OF_MEMORY = re.compile(r"running low on memory|OutOfMemoryError")
_FATAL = re.compile(r"Fatal Python error: (.*)")
_FRAME = re.compile(r'File "(.*)", line (\d+) in (.*)')


@dataclass
class CrashRecord:
    """What a process left when it ended.

    Attributes
    ----------
    printed
        ``stdout`` and ``stderr`` → the last lines.
    status
        The status as of waitpid, if the witness saw it.
    exit
        How ``os._exit`` was called: the exit code, and the source line.
    fatal
        The traceback that Python wrote when a signal ended it.
    out_of_memory
        Whether the kernel killed a process for lack of memory meanwhile.
    """

    printed: dict[str, list[str]] = field(default_factory=dict)
    status: int | None = None
    exit: tuple[int, str] | None = None
    fatal: str = ""
    out_of_memory: bool = False


class CrashRecorder:
    """Keeps the crash folder of this process from construction to :meth:`close`.

    ``os._exit`` is replaced meanwhile, for it runs no handlers: shown by
    ``tests/experiment/test_tune.py::test_whatever_ends_a_variant_by_tune``.
    """

    def __init__(self) -> None:
        base = home_folder("cache", "last-words")
        _remove_abandoned(base)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}@{_HOST}@", dir=base))
        self._fatal = open(self.folder / FATAL, "w", encoding="utf-8", opener=private_opener)
        faulthandler.enable(self._fatal, all_threads=False)
        self._real_exit = os._exit
        os._exit = self._exit  # type: ignore[assignment]
        self._process = os.getpid()

    def _exit(self, status: int) -> None:
        if os.getpid() == self._process:  # forked processes call os._exit too
            frame = traceback.extract_stack(limit=2)[0]
            line = f"{frame.filename}:{frame.lineno}, in {frame.name}:   {frame.line}"
            with contextlib.suppress(OSError, ValueError):
                text = json.dumps([int(status), line])
                (self.folder / EXIT).write_text(text, encoding="utf-8")
        self._real_exit(status)

    def close(self) -> None:
        """Remove the folder: the process ends normally."""
        os._exit = self._real_exit
        faulthandler.enable(all_threads=False)
        self._fatal.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove_abandoned(base: Path) -> None:
    """Remove the folders of dead processes that no driver has read: their run had ended."""
    for folder in base.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if time.time() - folder.stat().st_mtime < ABANDONED_SECONDS:
                continue
            pid, host, _ = folder.name.split("@")
            if host != _HOST:  # a home directory that hosts share
                continue
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


def read_record(crash_folder: str) -> CrashRecord:
    """Return what a process of this host left, and remove it."""
    folder = Path(crash_folder)
    poll((folder / witness.NAME).exists, seconds=WITNESS_SECONDS, pause=0.02)
    record = CrashRecord()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        last = json.loads((folder / witness.NAME).read_text(encoding="utf-8"))
        record.status, record.out_of_memory = last["status"], last["out_of_memory"]
        for name in ("stdout", "stderr"):
            lines = capture.lines_of(_MARK.sub("\n", last[name]))
            record.printed[name] = lines[1:] if name in last["cut"] else lines
    with contextlib.suppress(OSError, ValueError, TypeError):
        code, line = json.loads((folder / EXIT).read_text(encoding="utf-8"))
        record.exit = (code, line)
    with contextlib.suppress(OSError):
        record.fatal = (folder / FATAL).read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(folder, ignore_errors=True)
    return record


def missing_lines(lines: Sequence[str], arrived: Sequence[str]) -> list[str]:
    """Return the lines that came after those that arrived before."""
    for count in range(min(len(lines), len(arrived)), 0, -1):
        if list(lines[:count]) == list(arrived[-count:]):
            return list(lines[count:])
    # More arrived than the witness keeps: the last line that arrived is among its lines.
    for index in range(len(lines) - 1, -1, -1):
        tail = list(arrived[-(index + 1) :])
        if arrived and list(lines[index + 1 - len(tail) : index + 1]) == tail:
            return list(lines[index + 1 :])
    return list(lines)


def crash_failure(
    variant: Variant, record: CrashRecord, ray_text: str, last_lines: Sequence[str]
) -> Failure:
    """Return the failure of a variant whose process ended without reporting one."""
    ending, frame = _describe_end(record, ray_text)
    schema = variant.config if isinstance(variant.config, Schema) else None
    error = ComponentError(
        clean(ending + quote_last_lines(last_lines)),
        schema.place if schema else None,
        f"running !{schema.tag}" if schema else f"running {variant.stage}",
        record.fatal,
        frame,
    )
    return Failure(error, str(error))


def quote_last_lines(lines: Sequence[str]) -> str:
    """Return the end of an error message, which quotes what was printed last."""
    quoted = [f"\n  | {line[:200]}" for line in lines[-QUOTED_LINES:]]
    return "".join(["\n  it printed last:", *quoted]) if quoted else "\n  it had printed nothing"


def _describe_end(record: CrashRecord, ray_text: str) -> tuple[str, str]:
    """Return how a process ended, and at which source line."""
    if record.exit is not None:
        code, line = record.exit
        return f"its process ended: it called os._exit({code})", line
    if fatal := _FATAL.search(record.fatal):
        frame = _FRAME.search(record.fatal)
        line = f"{frame[1]}:{frame[2]}, in {frame[3]}" if frame else ""
        name = f" ({_signal_name(record.status)})" if record.status is not None else ""
        return f"its process crashed: {fatal[1].strip()}{name}", line
    if _OUT_OF_MEMORY.search(ray_text):
        return f"its process was killed: its host ran out of memory\n  {_MEMORY_HINT}", ""
    if record.status is not None and os.WIFEXITED(record.status):
        return f"its process ended with exit code {os.WEXITSTATUS(record.status)}", ""
    name = _signal_name(record.status) if record.status is not None else ""
    if record.out_of_memory and name in ("", "SIGKILL"):
        return f"its process was killed (SIGKILL): the host ran out of memory\n  {_MEMORY_HINT}", ""
    if name:
        return f"its process was ended by a signal: {name}", ""
    return (
        "its process ended without an error message: it was killed by SIGKILL, or a library that "
        "it called exited",
        "",
    )


_MEMORY_HINT = "let fewer variants run at once (devices), or make them smaller"


def _signal_name(status: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"signal {os.WTERMSIG(status)}"
