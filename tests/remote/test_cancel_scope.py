"""Scopes that are cancelled as one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from flambe.errors import RemoteError
from flambe.remote import cancel_scope
from flambe.remote.cancel_scope import CancelScope


@pytest.fixture
def scope() -> CancelScope:
    return CancelScope()


def within(scope: CancelScope, function: object) -> threading.Thread:
    """Start a thread that calls a function in a scope."""
    assert callable(function)

    def run() -> None:
        cancel_scope.current.set(scope)
        function()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_all_that_runs_is_ended_and_nothing_begins(scope: CancelScope) -> None:
    ended: list[str] = []
    first = scope.enter(lambda: ended.append("first"))
    scope.enter(lambda: ended.append("second"))
    scope.leave(first)
    scope.cancel()
    assert ended == ["second"]
    with pytest.raises(RemoteError, match="interrupted"):
        scope.enter(lambda: None)


def test_a_scope_is_cancelled_with_its_parent(scope: CancelScope) -> None:
    child = CancelScope(scope)
    grandchild = CancelScope(child)
    scope.cancel()
    assert child.cancelled
    assert grandchild.cancelled
    with pytest.raises(RemoteError):
        CancelScope(scope)


def test_a_program_ends_when_its_scope_is_cancelled(scope: CancelScope) -> None:
    codes: list[int] = []

    def run() -> None:
        codes.append(cancel_scope.run(["sleep", "1000"], timeout=600).returncode)

    thread = within(scope, run)
    while not scope._ends:
        time.sleep(0.01)
    scope.cancel()
    thread.join(30)
    assert codes == [-15]
    errors: list[str] = []

    def run_again() -> None:
        try:
            cancel_scope.run([sys.executable, "-c", ""], timeout=60)
        except RemoteError as error:
            errors.append(str(error))

    within(scope, run_again).join(30)
    assert errors == ["this machine: interrupted"]


def test_a_program_that_takes_too_long_is_killed() -> None:
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        cancel_scope.run(["sleep", "1000"], timeout=0.2)
    assert time.monotonic() - begun < 30
    done = cancel_scope.run(
        ["sh", "-c", "echo out; echo err >&2"], timeout=60, stdout=-1, stderr=-1
    )
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_a_pause_ends_with_its_scope(scope: CancelScope) -> None:
    thread = within(scope, lambda: cancel_scope.sleep(1000))
    scope.cancel()
    thread.join(30)
    assert not thread.is_alive()
