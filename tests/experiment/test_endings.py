"""However the process of a variant ends: how, and what it printed last, is told."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.experiment.executors import crash_record
from flambe.experiment.executors.crash_record import CrashRecord
from flambe.progress import Status
from tests.experiment.lab import Lab, Outcome

pytestmark = pytest.mark.integration

# How it ends → what is said of it, with Ray; where it is another thing, without.
HERE = {
    "exit": r"SystemExit: it called sys.exit\(0\), .*",
    "argparse": r"SystemExit: it called sys.exit\(2\), .*",
    "interrupt": "KeyboardInterrupt: raised by the component, not by Ctrl-C",
    "two": "NeedsTwo: 1 and 2",
    "half": r"ValueError: bad \\udcff text",
    "huge": r"ValueError: startx+ \[… 2,99\d,\d+ characters …\] x+end",
    "of_its_own": "Own: mine",
}
DEATHS = {
    "os_exit": r"its process ended: it called os._exit\(3\)",
    "kill": r"its process (ended without an error message: it was killed by|was ended by a signal:) "
    "SIGKILL.*",
    "crash": "its process crashed: Segmentation fault.*",
}
MORE = "max_failures: 0\nstop_on_failure: false"


def check(outcome: Outcome, how: str, text: str) -> None:
    variant = next(v for v in outcome.of("end") if v.choices["how"] == how)
    assert variant.status is Status.FAILED
    first, *more = variant.error.splitlines()
    assert re.search(rf"config.yaml:\d+:\d+: running !pieces.Ending: {text}$", first), first
    assert "Ray" not in variant.error
    assert "Actor" not in variant.error
    log = (outcome.folder.variant("end", variant.name) / "variant.log").read_text()
    # Each line once, though the end of one was never printed.
    assert len(re.findall(rf" stdout +last of {how}\n", log)) == 1
    assert len(re.findall(rf" stdout +not ended by {how}\n", log)) == 1
    assert first in log
    if how in ("exit", "argparse", *DEATHS):
        assert "  it printed last:" in more
        shown = [line for line in more if line.startswith("  | ")]
        assert f"  | last of {how}" in shown
        assert f"  | not ended by {how}" in shown
    if how == "argparse":
        assert "  | tool: error: unrecognized arguments: --what" in more
    if how == "huge":
        assert "x" * 3_000_000 + "end\n" in log
        assert len(variant.error) < 6_000
    if how not in DEATHS or how in ("os_exit", "crash"):
        assert re.search(rf"  at .*pieces/__init__.py:\d+, in {how}", variant.error)


def test_whatever_ends_a_variant_here(lab: Lab) -> None:
    outcome = lab.run(f"end: !pieces.Ending {{how: !g [{', '.join(HERE)}]}}", more=MORE)
    for how, text in HERE.items():
        check(outcome, how, text)


def test_what_nobody_asked_after_is_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "from flambe.experiment.executors.crash_record import CrashRecorder; CrashRecorder()"
    place = home / "cache" / "last-words"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    (left,) = place.iterdir()
    crash_record._remove_abandoned(place)
    assert left.exists(), "somebody may ask yet"
    monkeypatch.setattr(crash_record, "ABANDONED_SECONDS", -1.0)
    (place / "1@elsewhere@x").mkdir()
    crash_record._remove_abandoned(place)
    assert [folder.name for folder in place.iterdir()] == ["1@elsewhere@x"]


@pytest.mark.parametrize(
    ("lines", "arrived", "missing"),
    [
        (["a", "b"], [], ["a", "b"]),
        (["a", "b", "c"], ["a", "b"], ["c"]),
        (["a", "b", "c"], ["x", "a", "b", "c"], []),
        (["b", "c", "d"], ["a", "b", "c"], ["d"]),
        (["x", "x", "x"], ["x", "x"], ["x"]),
        (["a", "b", "c", "d"], ["b", "c"], ["d"]),
        (["c", "d"], ["a", "b"], ["c", "d"]),
        ([], ["a"], []),
    ],
)
def test_what_did_not_arrive_is_known(
    lines: list[str], arrived: list[str], missing: list[str]
) -> None:
    assert crash_record.missing_lines(lines, arrived) == missing


@pytest.mark.parametrize(
    ("record", "ray_text", "text"),
    [
        (CrashRecord(), "", "ended without an error message: it was killed by SIGKILL"),
        (CrashRecord(status=9), "", "ended by a signal: SIGKILL"),
        (CrashRecord(status=3 << 8), "", "ended with exit code 3"),
        (CrashRecord(status=9, out_of_memory=True), "", "killed (SIGKILL): the host ran out of"),
        (CrashRecord(out_of_memory=True), "", "killed (SIGKILL): the host ran out of memory"),
        (CrashRecord(status=15, out_of_memory=True), "", "ended by a signal: SIGTERM"),
        (
            CrashRecord(),
            "Task was killed due to the node running low on memory",
            "ran out of memory",
        ),
        (CrashRecord(fatal="Fatal Python error: Aborted\n", status=134), "", "Aborted (SIGABRT)"),
    ],
)
def test_how_a_process_ended_is_told(record: CrashRecord, ray_text: str, text: str) -> None:
    assert text in crash_record._describe_end(record, ray_text)[0]
