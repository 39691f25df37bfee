"""Why a variant failed, without the layers of Ray around the cause.

A worker reports what it raised to the collector before Ray hears of it. Tune also writes the error
to a file, as a pickle and as text: only the text is read, and only for workers that ended without
reporting anything.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace

from flambe._files import read_regular
from flambe.compile import component_errors
from flambe.errors import ComponentError, DamagedError, FlambeError, HaltedError, UnsavableError
from flambe.logging import redact

# What Ray writes where the host of a worker is gone; see ray.exceptions.
_HOST_LOST = re.compile(
    r"node has died|local raylet died|^The actor \w* ?is unavailable", re.MULTILINE
)
# Precedes each failure in the file that Tune writes.
_HEADING = re.compile(r"^Failure # \d+ \(occurred at .*\)\n", re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """Why a variant failed.

    Attributes
    ----------
    error
        What the component raised, if it did.
    text
        The message for users.
    host_lost
        Whether the trial ended because its host did: it did nothing wrong.
    exits
        Whether it called ``sys.exit``: what it printed before says why.
    lasting
        Whether a retry would fail the same way.
    halts
        Whether what the whole run needs is gone: other variants would fail the same way.
    """

    error: ComponentError | None
    text: str
    host_lost: bool = False
    exits: bool = False
    lasting: bool = False
    halts: bool = False

    def redacted(self) -> Failure:
        """Return the failure without the hidden values."""
        error = redact.hidden(self.error) if self.error is not None else None
        assert error is None or isinstance(error, ComponentError)
        return replace(self, error=error, text=redact.hide(self.text))

    def followed_by(self, text: str) -> Failure:
        """Return the failure with text appended to its message."""
        if self.error is None:
            return replace(self, text=self.text + text)
        old = self.error
        error = ComponentError(old.message + text, old.place, old.what, old.traceback, old.frame)
        return replace(self, error=error, text=str(error))


def reported_failure(error: BaseException) -> Failure:
    """Return what a worker reports of an exception."""
    # An error of a remote task is an instance of its cause's class as well: the cause counts.
    while isinstance(inner := getattr(error, "cause", None), Exception):
        error = inner
    if isinstance(error, ComponentError):
        exits = isinstance(error.__cause__, SystemExit)
        # The cause may not survive pickling.
        error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        return Failure(error, str(error), exits=exits)
    if isinstance(error, HaltedError):
        return Failure(None, error.message, lasting=True, halts=True)
    if isinstance(error, FlambeError):
        text = component_errors.clean(
            component_errors.bounded(str(error), component_errors.MOST_MESSAGE)
        )
        return Failure(None, text, lasting=isinstance(error, UnsavableError | DamagedError))
    return Failure(None, component_errors.message(error))


def full_message(error: BaseException) -> str:
    """Return the whole message of an error that is too long to be shown, or nothing."""
    if error.__cause__ is None:
        return ""
    full = component_errors.whole_message(error.__cause__)
    return full if len(full) > component_errors.MOST_MESSAGE else ""


def unreported_failure(error_file: str | None) -> Failure:
    """Return why a trial failed whose worker ended without reporting anything.

    Parameters
    ----------
    error_file
        The text file that Tune wrote about it, if it did.
    """
    text = ""
    with contextlib.suppress(OSError):
        content = read_regular(error_file or "").decode("utf-8", errors="replace")
        text = _HEADING.split(content)[-1].strip()
    host_lost = _HOST_LOST.search(text) is not None
    return Failure(None, text or "the trial failed; its log says more", host_lost)
