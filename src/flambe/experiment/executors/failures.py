"""Why a trial of Ray Tune failed, without the layers of Ray around it.

A worker reports what it raised to the collector before Ray hears of it. Tune keeps the same as a
pickle on a disk, which is not read: of a worker that ended without a word, Tune's text says why.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import Any

from flambe._files import read_regular
from flambe.compile import component_errors
from flambe.errors import ComponentError, FlambeError, HaltedError, UnsavableError
from flambe.logging import redact

# What Ray says where the host of a worker is gone; see ray.exceptions.
_LOST = re.compile(r"node has died|local raylet died|^The actor \w* ?is unavailable", re.MULTILINE)
# Above each failure in the file that Tune writes.
_HEADING = re.compile(r"^Failure # \d+ \(occurred at .*\)\n", re.MULTILINE)


@dataclass(frozen=True)
class Failure:
    """What a trial failed of.

    Attributes
    ----------
    error
        What the component raised, if it did.
    text
        What people are told.
    host_lost
        Whether the trial ended because its host did: it did nothing wrong.
    exits
        Whether it called ``sys.exit``: what it printed before says why.
    lasting
        Whether the next try would end in the same way.
    halts
        Whether what the run needs is gone: the others would end in the same way.
    """

    error: ComponentError | None
    text: str
    host_lost: bool = False
    exits: bool = False
    lasting: bool = False
    halts: bool = False

    def hidden(self) -> Failure:
        """Return the same without the hidden values."""
        error = redact.hidden(self.error) if self.error is not None else None
        assert error is None or isinstance(error, ComponentError)
        return replace(self, error=error, text=redact.hide(self.text))

    def followed_by(self, text: str) -> Failure:
        """Return the same with more at the end of its message."""
        if self.error is None:
            return replace(self, text=self.text + text)
        known = self.error
        error = ComponentError(
            known.message + text, known.place, known.what, known.traceback, known.frame
        )
        return replace(self, error=error, text=str(error))


def reported(error: BaseException) -> Failure:
    """Return what a worker reports of an exception."""
    # An error of a remote task is an instance of its cause's class as well: the cause counts.
    while isinstance(inner := getattr(error, "cause", None), Exception):
        error = inner
    if isinstance(error, ComponentError):
        exits = isinstance(error.__cause__, SystemExit)
        # The cause may not survive the way.
        error = error.with_traceback(None)
        error.__cause__ = error.__context__ = None
        return Failure(error, str(error), exits=exits)
    if isinstance(error, HaltedError):
        return Failure(None, error.message, lasting=True, halts=True)
    if isinstance(error, FlambeError):
        text = component_errors.clean(
            component_errors.bounded(str(error), component_errors.MOST_MESSAGE)
        )
        return Failure(None, text, lasting=isinstance(error, UnsavableError))
    return Failure(None, component_errors.message(error))


def whole_text(error: BaseException) -> str:
    """Return all that an error says that is too long to be shown, or nothing."""
    if error.__cause__ is None:
        return ""
    whole = component_errors.whole_message(error.__cause__)
    return whole if len(whole) > component_errors.MOST_MESSAGE else ""


def unreported(trial: Any) -> Failure:
    """Return what a trial failed of whose worker ended without a word."""
    text = ""
    with contextlib.suppress(OSError):
        written = read_regular(trial.error_file or "").decode("utf-8", errors="replace")
        text = _HEADING.split(written)[-1].strip()
    lost = _LOST.search(text) is not None
    return Failure(None, text or "the trial failed; its log says more", lost)
