"""What is printed, taken: lines, progress bars, escape sequences, and the last words of a process."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flambe.logging import capture


def take_from(code: str, folder: Path | None = None, name: str = "") -> list[tuple[str, str]]:
    """Return what is taken of a process that runs code; with a folder, by way of a witness."""
    program = f"""
import json, os, sys, time, logging
from pathlib import Path
from flambe.logging.capture import Printed, logged
taken = []
folder = {str(folder or "")!r}
printed = Printed(lambda level, text: taken.append((level, text)), Path(folder) if folder else None)
printed.start()
{code}
printed.stop()
print(json.dumps(taken))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(level, text) for level, text in json.loads(done.stdout)]


@pytest.fixture(params=[False, True], ids=["direct", "witness"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param else None


def test_what_is_printed_is_taken_as_lines_of_text(place: Path | None) -> None:
    taken = take_from(
        r"""
print("one\n\ntwo")
print("\x1b[2J\x1b[31mred\x1b[0m \x1b]0;title\x07end")
print("\x1b[2J\x1b[H")
sys.stdout.flush(); os.write(1, b"raw \xff bytes\n")
print("dos\r")
print("q" * 3_000_000)
print("no end", end="")
""",
        place,
    )
    assert [text for level, text in taken if level == "stdout"] == [
        *("one", "", "two", "red end", "raw \ufffd bytes", "dos", "q" * 3_000_000, "no end")
    ]


def test_a_progress_bar_is_shown_now_and_then_and_kept_once(place: Path | None) -> None:
    taken = take_from(
        r"""
for i in range(300):
    sys.stderr.write(f"\r{i}/300 \x1b[A"); sys.stderr.flush(); time.sleep(0.01)
sys.stderr.write("\r300/300\n")
""",
        place,
    )
    states = [text for level, text in taken if level == capture.PROGRESS]
    assert 2 <= len(states) <= 8
    assert all(re.fullmatch(r"\d+/300 ", text) for text in states)
    assert [pair for pair in taken if pair[0] == "stderr"] == [("stderr", "300/300")]


def test_what_waits_on_its_line_is_shown_while_it_waits(place: Path | None) -> None:
    taken = take_from(
        'print("loading ...", end="", flush=True); time.sleep(1.5); print(" done")', place
    )
    # What was written last may be shown for a moment before its line is known to be at its end.
    assert taken[0] == ("progress", "loading ...")
    assert taken[1:-1] in ([], [("progress", "loading ... done")])
    assert taken[-1] == ("stdout", "loading ... done")


def test_to_settle_is_to_have_taken_all_even_what_has_no_end(place: Path | None) -> None:
    taken = take_from(
        r"""
for i in range(200):
    print(f"line {i}"); print(f"half {i}", end="")
    printed.settle()
    assert taken[-1] == ("stdout", f"half {i}"), taken[-3:]
os.close(1); os.dup2(2, 1)
printed.settle()
print("back")
printed.settle()
assert taken[-1] == ("stdout", "back"), taken[-3:]
""",
        place,
    )
    assert len(taken) == 401


def test_a_library_that_prints_its_log_is_taken_once() -> None:
    taken: list[tuple[str, str]] = []
    logger = logging.getLogger("lightning.like")
    with capture.printed_here(lambda level, text: taken.append((level, text))):
        handler = logging.StreamHandler()  # to the standard error of now
        logger.addHandler(handler)
        try:
            logger.warning("GPU available: False")
            logging.getLogger("lightning.like.below").warning("TPU available: False")
        finally:
            logger.removeHandler(handler)
        logger.warning("told by logging")
    assert taken == [
        ("stderr", "GPU available: False"),
        ("stderr", "TPU available: False"),
        ("WARNING", "lightning.like: told by logging"),
    ]


def test_inline_bars_and_escapes_are_text_too() -> None:
    taken: list[tuple[str, str]] = []
    with capture.printed_here(lambda level, text: taken.append((level, text))):
        print("\x1b[2J\x1b[31mred\x1b[0m \udcff")
        for i in range(5):
            print(f"\r{i}/5", end="")
        time.sleep(capture.PROGRESS_PERIOD)
        print("\r5/5", end="")
        print("\r5/5 done")
    assert taken == [("stdout", "red \\udcff"), ("progress", "5/5"), ("stdout", "5/5 done")]


@pytest.mark.parametrize(
    ("death", "status"),
    [
        ("os._exit(3)", 3 << 8),
        ("os.kill(os.getpid(), 9)", 9),
        ("os.abort()", 6),
    ],
)
def test_a_witness_keeps_the_last_words(tmp_path: Path, death: str, status: int) -> None:
    program = f"""
import os, sys
from pathlib import Path
from flambe.logging.capture import Printed
Printed(lambda level, text: None, Path({str(tmp_path)!r})).start()
os.write(2, b"x" * 50_000 + b"\\nwarned\\n")
os.write(1, b"said last\\n"); {death}
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie for now
    deadline = time.monotonic() + 20
    while not (tmp_path / "last.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    last = json.loads((tmp_path / "last.json").read_text())
    process.wait()
    assert last["stdout"] == "said last\n"
    assert last["stderr"].endswith("x\nwarned\n")
    assert last["cut"] == ["stderr"]
    assert last["status"] is not None
    assert last["status"] & ~0x80 == status  # without the bit of a core
    assert last["out_of_memory"] is False
