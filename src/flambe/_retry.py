"""Retrying and polling with a deadline. The agent of a host, which ships alone, has its own loops.

tenacity is imported at first use: it brings asyncio, and ``flambe --help`` needs neither.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Not the generator that all share: components draw from it, and repeat what they drew.
_generator = random.Random()


def retry(
    call: Callable[[], T],
    *,
    seconds: float = float("inf"),
    attempts: int | None = None,
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool],
    pause: float = 0.5,
    longest: float = 15.0,
    jitter: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    before_retry: Callable[[BaseException], None] | None = None,
) -> T:
    """Call a function until it does not raise, for a limited time.

    Parameters
    ----------
    call
        The function.
    seconds
        No attempt starts later than this after the first one.
    attempts
        How many there are at most; by default only the time counts.
    on
        The errors that are worth another attempt: their classes, or a predicate.
    pause, longest
        Seconds before the second attempt; doubled before each further one, up to the longest.
    jitter
        Vary each pause by up to a half, so that clients that fail together do not return together.
    sleep
        Waits between attempts.
    before_retry
        Called with the error before each wait.

    Returns
    -------
    T
        What the function returned.

    Raises
    ------
    BaseException
        The last error of the function when the time is over, and any error that is not worth
        another attempt, as they are.
    """
    import tenacity

    def wait(state: tenacity.RetryCallState) -> float:
        base = min(pause * 2.0 ** min(state.attempt_number - 1, 64), longest)
        return base * _generator.uniform(0.5, 1.5) if jitter else base

    def notify(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if before_retry is not None and error is not None:
            before_retry(error)

    worth_it = (
        tenacity.retry_if_exception_type(on)
        if isinstance(on, (type, tuple))
        else tenacity.retry_if_exception(on)
    )
    stop: tenacity.stop.stop_base = tenacity.stop_before_delay(seconds)
    if attempts is not None:
        stop |= tenacity.stop_after_attempt(attempts)
    return tenacity.Retrying(
        retry=worth_it,
        stop=stop,
        wait=wait,
        before_sleep=notify,
        sleep=sleep,
        reraise=True,
    )(call)


def poll(
    check: Callable[[], T],
    *,
    seconds: float,
    pause: float = 0.1,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call a function until it returns something true, for a limited time.

    Parameters
    ----------
    check
        The function; its errors end the polling.
    seconds
        The time limit; the function is called at least once.
    pause
        Seconds between two calls.
    sleep
        Waits between calls.

    Returns
    -------
    T
        What the function returned last: false if the time is over.
    """
    deadline = time.monotonic() + seconds
    while not (value := check()) and (left := deadline - time.monotonic()) > 0:
        sleep(min(pause, left))
    return value
