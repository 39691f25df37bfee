"""Why a trial of Ray Tune failed, without the layers of Ray around it.

A worker reports what it raised to the collector before Ray hears of it. Tune keeps the same as a
pickle on a disk, which is not read: of a worker that ended without a word, Tune's text says why.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

from flambe._files import read_regular
from flambe.errors import ComponentError

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
    """

    error: ComponentError | None
    text: str
    host_lost: bool = False


def reported(error: Exception) -> Failure:
    """Return what a worker reports of an exception."""
    # An error of a remote task is an instance of its cause's class as well: the cause counts.
    while isinstance(inner := getattr(error, "cause", None), Exception):
        error = inner
    if isinstance(error, ComponentError):
        return Failure(error, str(error))
    text = str(error).strip()
    return Failure(None, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def unreported(trial: Any) -> Failure:
    """Return what a trial failed of whose worker ended without a word."""
    text = ""
    with contextlib.suppress(OSError):
        written = read_regular(trial.error_file or "").decode("utf-8", errors="replace")
        text = _HEADING.split(written)[-1].strip()
    lost = _LOST.search(text) is not None
    return Failure(None, text or "the trial failed; its log says more", lost)
