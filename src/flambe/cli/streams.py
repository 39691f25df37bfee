"""The standard streams of this process: any text can be written, also without a reader."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
from typing import IO, Any

# What replaces our signs in an encoding without them; other characters are written as "\u1234".
_ASCII = {"✔": "+", "✘": "x", "▶": ">", "↺": "~", "■": "#", "·": ".", "…": ".", "–": "-", "→": ">"}
_ERRORS = "flambe.ascii"
_log = logging.getLogger(__name__)


def prepare() -> None:
    """Prepare stdout and stderr for any text, even if they are closed.

    Call it once, at the start of a command.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would get its number
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=_ERRORS)


def silence(stream: IO[str]) -> None:
    """Discard what is written from now on: a buffer would fail again when the process exits."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def finish() -> None:
    """Flush stdout and stderr, so that a closed terminal does not change the exit code.

    Call it once, at the end of a command.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stderr or getattr(error, "errno", None) in (errno.EPIPE, errno.EIO):
                silence(stream)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    text = "".join(_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in signs)
    return text, error.end


codecs.register_error(_ERRORS, _in_ascii)


class SteadyStream:
    """An output stream that never fails: after the first error, it discards text and logs that."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        """Write a text, or discard it."""
        if not self._broken:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self.write(text.encode("ascii", _ERRORS).decode("ascii"))
            except (OSError, ValueError) as error:  # gone, full, or closed
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or discard its buffer."""
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        silence(self._stream)
        _log.info("the output cannot be written, so nothing more is shown: %s", error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
