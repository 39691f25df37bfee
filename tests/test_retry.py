"""Retrying and polling with a deadline."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from flambe._retry import poll, retry


class Flaky:
    """A function that fails a number of times; and a clock that only its pauses move."""

    def __init__(self, failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures = failures
        self.pauses: list[float] = []
        monkeypatch.setattr("time.monotonic", lambda: 1000.0 + sum(self.pauses))

    def __call__(self) -> str:
        if self.failures:
            self.failures -= 1
            raise ConnectionError(f"{self.failures} left")
        return "done"

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_it_returns_what_the_first_good_attempt_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, errors = Flaky(4, monkeypatch), []
    value = retry(
        flaky,
        seconds=60,
        on=OSError,
        pause=1.0,
        longest=3.0,
        sleep=flaky.sleep,
        before_retry=lambda error: errors.append(str(error)),
    )
    assert value == "done"
    assert flaky.pauses == [1.0, 2.0, 3.0, 3.0]
    assert errors == ["3 left", "2 left", "1 left", "0 left"]


def test_the_last_error_is_raised_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(100, monkeypatch)
    with pytest.raises(ConnectionError, match="96 left"):
        retry(flaky, seconds=10, on=OSError, pause=1.0, sleep=flaky.sleep)
    assert flaky.pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("on", [ValueError, (ValueError, KeyError), lambda error: False])
def test_other_errors_are_raised_at_once(
    on: type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flaky = Flaky(2, monkeypatch)
    with pytest.raises(ConnectionError, match="1 left"):
        retry(flaky, seconds=10, on=on, sleep=flaky.sleep)
    assert flaky.pauses == []


def test_pauses_vary_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(50, monkeypatch)
    retry(flaky, seconds=1e9, on=OSError, longest=4.0, jitter=True, sleep=flaky.sleep)
    assert all(2.0 <= pause <= 6.0 for pause in flaky.pauses[4:])
    assert len(set(flaky.pauses)) > 25


def test_polling_ends_with_the_first_true_value(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, values = Flaky(0, monkeypatch), iter([0, 0, 7])
    assert poll(lambda: next(values), seconds=10, pause=1.0, sleep=flaky.sleep) == 7
    assert flaky.pauses == [1.0, 1.0]


def test_polling_asks_once_more_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, calls = Flaky(0, monkeypatch), []
    assert poll(lambda: calls.append(1), seconds=2.5, pause=1.0, sleep=flaky.sleep) is None
    assert flaky.pauses == [1.0, 1.0, 0.5]
    assert len(calls) == 4
    assert poll(lambda: calls.append(1), seconds=0, sleep=flaky.sleep) is None
    assert len(calls) == 5


def test_pauses_leave_the_random_numbers_of_components_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, flaky = random.getstate(), Flaky(3, monkeypatch)
    assert retry(flaky, seconds=60, on=OSError, jitter=True, sleep=flaky.sleep) == "done"
    assert random.getstate() == before
