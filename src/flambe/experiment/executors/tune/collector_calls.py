"""Calls to the collector of a run, which is started again when its process is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError

from flambe.errors import RunError

ANSWER_SECONDS = 60.0
PAUSE = 0.2  # seconds until it is asked again
_GONE = (
    "the process that collects what variants say ended, and cannot be started again: its host may "
    "be out of memory"
)


def answer(call: Callable[[], Any], seconds: float = ANSWER_SECONDS) -> Any:
    """Return what the collector answers; while it is started again, it is asked again.

    Parameters
    ----------
    call
        Asks; it is done more than once where the collector is killed.
    seconds
        For how long.

    Raises
    ------
    RunError
        If there is none.
    GetTimeoutError
        If it does not answer.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return ray.get(call(), timeout=max(1.0, end - time.monotonic()))
        except RayActorError:
            if time.monotonic() > end:
                raise RunError(_GONE) from None
            time.sleep(PAUSE)
