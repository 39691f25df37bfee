"""Fan-out: a function is called with many hosts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flambe.errors import FanOutError, RemoteError
from flambe.remote import cancel_scope

T = TypeVar("T")
R = TypeVar("R")

# Threads only wait for SSH here.
MOST_AT_ONCE = 64


def outcomes(do: Callable[[T], R], hosts: Sequence[T]) -> list[R | RemoteError]:
    """Call a function with each host, all at the same time; return the result or error of each.

    Only errors of hosts are returned; any other is a bug, and raised.
    """
    if not hosts:
        return []

    scope = cancel_scope.CancelScope(cancel_scope.current.get())

    def attempt(host: T) -> R | RemoteError:
        cancel_scope.current.set(scope)
        try:
            return do(host)
        except RemoteError as error:
            return error
        except BaseException:  # the others are not waited for
            scope.cancel()
            raise

    with ThreadPoolExecutor(min(len(hosts), MOST_AT_ONCE), "flambe-host") as pool:
        try:
            return list(pool.map(attempt, hosts))
        except BaseException:
            scope.cancel()
            raise


def each(do: Callable[[T], R], hosts: Sequence[T]) -> list[R]:
    """Call a function with each host, all at the same time; return the results in order.

    All are awaited, whatever happens to one of them.

    Raises
    ------
    RemoteError
        If one host failed: its error.
    FanOutError
        If several did: all their errors.
    """
    results: list[R] = []
    errors: list[RemoteError] = []
    for outcome in outcomes(do, hosts):
        if isinstance(outcome, RemoteError):
            errors.append(outcome)
        else:
            results.append(outcome)
    if len(errors) > 1:
        raise FanOutError(errors)
    if errors:
        raise errors[0]
    return results
