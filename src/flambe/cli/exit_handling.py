"""How a command ends: its errors as people read them, and its exit code."""

from __future__ import annotations

import argparse
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

Command = Callable[[argparse.Namespace], int]


def guarded(command: Command, options: argparse.Namespace) -> int:
    """Run a command; tell errors as people want them told; return the exit code."""
    streams.prepare()
    console.setup(verbose=options.verbose)
    try:
        return command(options)
    except FlambeError as error:
        if isinstance(error, Interrupted):
            _end_quietly()
        _tell(error, verbose=options.verbose)
        return error.exit_code
    except KeyboardInterrupt:
        _end_quietly()
        say("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever read our output is gone; what is left of it goes nowhere.
        streams.silence(sys.stdout)
        return 1
    except Exception as error:
        _log.debug("unexpected", exc_info=True)
        if (refusal := refused(error)) is not None:
            _tell(refusal, verbose=options.verbose)
            return 1
        say(f"error: {type(error).__name__}: {error}")
        if options.verbose:
            say(traceback.format_exc())
        else:
            say(f"  more with -v, and in {console.home() / 'logs' / 'log.log'}")
        return 1
    finally:
        streams.finish()


def _end_quietly() -> None:
    """Let a second Ctrl-C not cut off what is told of the first, and the exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def say(text: str) -> None:
    """Tell people something beside the output of a command, secrets hidden."""
    with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
        print(plain(redact.hide(text)), file=sys.stderr, flush=True)


def _tell(error: FlambeError, *, verbose: bool) -> None:
    if isinstance(error, ConfigError):
        for problem in error.problems:
            say(f"error: {problem}")
        if len(error.problems) > 1:
            say(f"{len(error.problems)} errors; nothing was run")
    else:
        say(f"error: {error}" if error.exit_code == 1 else str(error))
    # What a run on a cluster says is its log: the whole of it is wanted there.
    if verbose or (isinstance(error, ComponentError) and os.environ.get("FLAMBE_HOST")):
        detail = error.traceback if isinstance(error, ComponentError) else ""
        say(detail or "".join(traceback.format_exception(error)))
    elif isinstance(error, ComponentError) and error.traceback:
        say("  the whole traceback with -v")


def refused(error: Exception) -> RunError | None:
    """Return what a disk of this machine refused, if that was it."""
    if not isinstance(error, OSError):
        return None
    path = str(error.filename or console.home())
    own = Path(path).is_relative_to(console.home())
    if error.errno not in (*_disk.FULL, errno.EROFS) and not (own and error.errno == errno.EACCES):
        return None
    text = _disk.reason(error, path)
    return RunError(f"{text}, or set FLAMBE_HOME to another folder" if own else text)


SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt where one of these signals would end the process.

    One that is ignored stays so: ``nohup`` starts what outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {}
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            earlier[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
