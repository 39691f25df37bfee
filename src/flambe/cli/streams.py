"""The output of this process: it takes any text, and fails nothing once its reader is gone."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
from typing import IO, Any

# Signs of ours, for an output whose encoding does not have them; others are written as "\u1234".
_ASCII = {"✔": "+", "✘": "x", "▶": ">", "↺": "~", "■": "#", "·": ".", "…": ".", "–": "-", "→": ">"}
_ERRORS = "flambe.ascii"
_log = logging.getLogger(__name__)


def prepare() -> None:
    """See that whatever is printed can be: no sign and no closed output fails what is shown.

    To be called once, at the start of a command.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: a file that is opened later would be written in its place
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=_ERRORS)


def silence(stream: IO[str]) -> None:
    """Let what is written go nowhere: what waits in a buffer would fail again at the exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def finish() -> None:
    """See that the exit code of this process is not that of a terminal that is gone.

    To be called once, at the end of a command.
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
    """An output that takes everything: once it cannot be written, nothing is; the log says so."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        if not self._broken:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self.write(text.encode("ascii", _ERRORS).decode("ascii"))
            except (OSError, ValueError) as error:  # gone, full, or closed
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what waits, if that is possible."""
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        silence(self._stream)
        _log.info("nothing more is shown, as the output cannot be written: %s", error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
