"""What the tests of faults take for words that nobody should see."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.raw import OUTPUTS, is_flambe, raw_lines

RAW = [
    "[2026-01-01 10:00:00,123 E 12 34] global_state_accessor.cc:111: likely discovered a bug in Ray",
    "ray.exceptions.ActorDiedError: The actor died unexpectedly",
    "(raylet) A worker died or was killed while executing a task by an unexpected system error.",
    "Raylet is terminated. Termination is unexpected.",
    "c8.yaml:1:1: running !SSHCluster: JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    "rsync error: error in rsync protocol data stream (code 12) at io.c(228) [sender=3.2.7]",
    "exit code 255: rsync f11/ from .flambe/work/f11",
    "OSError: [Errno 28] No space left on device",
    "ValueError: invalid literal for int() with base 10: 'WELCOME'",
    "TypeError: acquire() missing 4 required positional arguments",
]
FINE = [
    "rsync is not installed on factory_1: apt-get install rsync",
    "factory_3 is lost: 2 factories left",
    "orchestrator: /home/ubuntu is full; free some, then the same command with --resume",
    "the actor of a play died",
]


def traceback(*files: str) -> str:
    """Return a traceback through some files, as a log of a variant has it."""
    frames = "".join(f'  File "{file}", line 3, in step\n    call()\n' for file in files)
    return f"Traceback (most recent call last):\n{frames}RuntimeError: blight at step 2\n"


@pytest.mark.parametrize("line", RAW)
def test_raw_words_are_noticed(line: str) -> None:
    assert list(raw_lines(f"before\n  {line}\nafter")) == [line]


def test_other_words_are_not() -> None:
    assert list(raw_lines("\n".join(FINE))) == []


def test_tracebacks_are_for_errors_of_components() -> None:
    component, own = "/srv/site/crops/growth.py", "/srv/flambe/experiment/stage.py"
    assert list(raw_lines(traceback(own, component))) == []
    assert len(list(raw_lines(traceback(component, own)))) == 1
    both = traceback(own, component) + "more\n" + traceback(own)
    assert len(list(raw_lines(both))) == 1


@pytest.mark.faults
def test_what_a_command_says_is_noted() -> None:
    """Whoever runs it; bytes and texts."""
    code = "import sys; 'flambe'; print('spoken'); print('complained', file=sys.stderr)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [text().split() for _, text in OUTPUTS.texts] == [["spoken", "complained"]] * 2


def test_programs_that_flambe_runs_are_not_it() -> None:
    """What they say is judged where flambe says it."""
    assert not is_flambe(["rsync", "--partial-dir=.flambe-partial", "host:.flambe/x", "."])
    assert not is_flambe(["ssh", "-S", "flambe/ssh", "host", "python3 flambe.pyz"])
    assert is_flambe(["bin/flambe", "status"])
    assert is_flambe(["python3.12", "-m", "flambe", "status"])
