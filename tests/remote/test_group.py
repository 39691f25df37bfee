from __future__ import annotations

import pickle
import threading

import pytest

from flambe.errors import CommandError, FanOutError, RemoteError
from flambe.remote import each
from flambe.remote.gather import outcomes


def test_all_hosts_are_done_at_the_same_time() -> None:
    barrier = threading.Barrier(16, timeout=20)

    def meet(number: int) -> int:
        barrier.wait()
        return number * number

    assert each(meet, range(16)) == [number * number for number in range(16)]
    assert each(meet, []) == []


def test_every_host_has_a_result_or_an_error() -> None:
    done = []

    def work(name: str) -> str:
        if name.startswith("bad"):
            raise RemoteError(name, "no")
        done.append(name)
        return name.upper()

    found = outcomes(work, ["a", "bad1", "b", "bad2"])
    assert [str(one) for one in found] == ["A", "bad1: no", "B", "bad2: no"]
    with pytest.raises(FanOutError, match="bad1: no\nbad2: no"):
        each(work, ["a", "bad1", "b", "bad2"])
    with pytest.raises(RemoteError, match="bad1: no") as raised:
        each(work, ["bad1", "c"])
    assert not isinstance(raised.value, FanOutError)
    assert "c" in done, "the others are awaited"


def test_errors_survive_pickling() -> None:
    one = CommandError("h", "false", 3, "out", "line 1\nline 2\n")
    for error in (one, FanOutError([one, RemoteError("g", "m")]), RemoteError("g", "m")):
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert type(copy) is type(error)
    assert str(one) == "h: exit code 3: false\n  | line 1\n  | line 2"
