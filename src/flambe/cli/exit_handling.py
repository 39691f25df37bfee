"""How a command ends: signals, errors in readable form, exit codes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from flambe import _disk
from flambe.cli import streams
from flambe.errors import ComponentError, ConfigError, FlambeError, Interrupted, RunError
from flambe.logging import console, redact
from flambe.logging.plain import plain

_log = logging.getLogger(__name__)

INTERRUPT_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def run_guarded(call: Callable[[], int], *, verbose: bool) -> int:
    """Run a command; print its errors for people to read; return its exit code."""
    streams.prepare()
    console.setup(verbose=verbose)
    try:
        return call()
    except FlambeError as error:
        if isinstance(error, Interrupted):
            _ignore_interrupts()
        _print_error(error, verbose=verbose)
        return error.exit_code
    except KeyboardInterrupt:
        _ignore_interrupts()
        print_message("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has exited; the rest of the output is discarded.
        streams.silence(sys.stdout)
        return 1
    except Exception as error:
        _log.debug("unexpected", exc_info=True)
        if (refusal := disk_error(error)) is not None:
            _print_error(refusal, verbose=verbose)
            return 1
        print_message(f"error: {type(error).__name__}: {error}")
        if verbose:
            print_message(traceback.format_exc())
        else:
            log = console.home() / "logs" / "log.log"
            print_message(f"  for more, use -v or see {log}")
        return 1
    finally:
        streams.finish()


def _ignore_interrupts() -> None:
    """Keep a second Ctrl-C from cutting off the message about the first, and the exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def print_message(text: str) -> None:
    """Print a message on stderr, secrets hidden."""
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        print(plain(redact.hide(text)), file=sys.stderr, flush=True)


def _print_error(error: FlambeError, *, verbose: bool) -> None:
    if isinstance(error, ConfigError):
        for problem in error.problems:
            print_message(f"error: {problem}")
        if len(error.problems) > 1:
            print_message(f"{len(error.problems)} errors; nothing was run")
    else:
        print_message(f"error: {error}" if error.exit_code == 1 else str(error))
    # The output of a run on a cluster is its log, and the log has the full traceback.
    if verbose or (isinstance(error, ComponentError) and os.environ.get("FLAMBE_HOST")):
        detail = error.traceback if isinstance(error, ComponentError) else ""
        print_message(detail or "".join(traceback.format_exception(error)))
    elif isinstance(error, ComponentError) and error.traceback:
        print_message("  use -v for the full traceback")


def disk_error(error: Exception) -> RunError | None:
    """Return the error to print where a disk of this machine is full or cannot be written."""
    if not isinstance(error, OSError):
        return None
    path = str(error.filename or console.home())
    in_home = Path(path).is_relative_to(console.home())
    is_denied = in_home and error.errno == errno.EACCES
    if error.errno not in (*_disk.FULL, errno.EROFS) and not is_denied:
        return None
    text = _disk.reason(error, path)
    return RunError(f"{text}, or set FLAMBE_HOME to another folder" if in_home else text)


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt where SIGTERM or a closed terminal would end the process.

    So what was started is undone, as by Ctrl-C. A signal that is ignored stays ignored: ``nohup``
    starts what outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {}
    for number in INTERRUPT_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            previous_handlers[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
