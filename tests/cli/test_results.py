"""``flambe results``, and what a run says at its end."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

from flambe.cli import display
from flambe.cli.display import Display, LiveDisplay
from flambe.cli.terminal import TextConsole
from flambe.experiment import observer
from flambe.progress import RunFolder, RunState, StageState, Status, VariantState
from tests.cli.inline import Terminal, flambe, write

pytestmark = pytest.mark.integration

TWO = """\
  early: !says.Says {text: e, metric: !g [0.5, .nan, 0.75]}
  late: !says.Says {text: l, other: !@ early}
  last: !says.Says {text: x, metric: null, other: !@ late}
"""


def test_the_best_of_the_last_stage_that_has_a_figure_and_of_any_other(tmp_path: Path) -> None:
    config = write(tmp_path, TWO, "reduce: {early: 2}")
    done = flambe(tmp_path, config)
    assert done.returncode == 0, done.stderr
    assert "the best     flambe.load('flambe-output/output__shown/late/" in done.stdout
    assert ", extensions=['says'])" in done.stdout
    shown = flambe(tmp_path, "results", "flambe-output")
    assert shown.returncode == 0, shown.stderr
    assert "the best     late metric=0.5: 1\n" in shown.stdout
    assert "extensions=['says'])" in shown.stdout
    assert "✔ shown finished in " in shown.stdout
    early = flambe(tmp_path, "results", "flambe-output/output__shown", "early")
    assert "the best     early metric=0.75: 0.75\n" in early.stdout
    rows = [line for line in early.stdout.splitlines() if "finished" in line and "│" in line]
    assert [row.split("│")[2].strip() for row in rows] == ["0.75", "0.5", "nan"]
    assert "late" not in early.stdout
    wrong = flambe(tmp_path, "results", "flambe-output", "ealry")
    assert wrong.returncode == 2
    assert "did you mean 'early'" in wrong.stderr
    none = flambe(tmp_path, "results", "flambe-output", "last")
    assert "no variant has a metric yet" in none.stdout
    assert flambe(tmp_path, "results", tmp_path / "no").returncode == 2


def test_a_run_that_found_all_done_says_so(tmp_path: Path) -> None:
    config = write(tmp_path, TWO)
    assert flambe(tmp_path, config).returncode == 0
    again = flambe(tmp_path, config, "--resume")
    assert again.returncode == 0, again.stderr
    said = "shown finished: there was nothing to run, the results of its 9 variants are from an"
    assert said in again.stdout
    assert " in 0.0 s" not in again.stdout


def test_of_several_runs_the_latest_is_named_first(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert flambe(tmp_path, write(tmp_path, TWO, name=name)).returncode == 0
    for command in ("site", "results"):
        several = flambe(tmp_path, command, "flambe-output")
        assert several.returncode == 2
        assert several.stderr.index("output__two   finished, 20") < several.stderr.index("__one")
        assert f"flambe {command} flambe-output/output__one" in several.stderr


def shown(kind: type[Display]) -> tuple[Display, io.StringIO, VariantState]:
    """Return what shows a run of one variant, on a terminal of 110 columns."""
    out = io.StringIO()
    made = kind(TextConsole(file=out, width=110, force_terminal=kind is LiveDisplay))
    variant = VariantState("ab12" * 4, "fit", "v=1", Status.RUNNING, {"v": 1})
    run = RunState("trial", stages=[StageState("fit", total=1, status=Status.RUNNING)])
    made.begun(RunFolder(Path("x")), run, {variant.id: variant})
    return made, out, variant


def test_the_line_that_a_component_writes_is_shown_live() -> None:
    live, out, variant = shown(LiveDisplay)
    assert isinstance(live, LiveDisplay)
    for percent in range(0, 100, 10):
        live.working(variant, f"\x1b[A{percent}%|#### {'x' * 100}")
    live.console.print(live._render())
    drawn = out.getvalue()
    assert "fit v=1" in drawn
    assert "90%|#### xx" in drawn
    assert "…" in drawn
    assert "\x1b[A" not in out.getvalue().replace("\x1b[1A", "")
    # Its own lines come after it, and a variant that ended writes nothing more.
    live.line(variant, "stdout", "100% done")
    live.working(variant, "next")
    variant.status = Status.FINISHED
    live.console.print(live._render())
    assert "next" not in out.getvalue()
    live.close()


def test_elsewhere_it_is_shown_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, out, variant = shown(Display)
    plain.working(variant, "1%")
    assert "1%" not in out.getvalue()
    monkeypatch.setattr(observer, "PROGRESS_PERIOD", -1.0)
    plain.working(variant, "2%")
    monkeypatch.setattr(observer, "PROGRESS_PERIOD", 10.0)
    plain.working(variant, "3%")
    assert out.getvalue().splitlines()[1:] == ["fit v=1 | 2%"]


BAR = """
import sys, time
from flambe.compile import Component

class Bar(Component):
    def run(self):
        for percent in range(0, 100, 2):
            sys.stderr.write(f"\\r\\x1b[31m{percent}%|##")
            time.sleep(0.05)
        sys.stderr.write("\\r100%|####\\n")
        return False
    def metric(self):
        return 1.0
"""


def test_a_progress_bar_of_a_component_moves_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "bars.py").write_text(BAR)
    config = write(tmp_path, "  a: !bars.Bar {}")
    config.write_text("bars: ./bars.py\n" + config.read_text())
    terminal = Terminal(tmp_path, config)
    drawn = terminal.read()
    assert terminal.code() == 0, drawn
    states = set(re.findall(r"(\d+)%\|##", drawn))
    assert len(states) > 3  # 50 were printed within two and a half seconds
    assert "100%|####" in drawn
    log = tmp_path / "flambe-output/output__shown/run.log"
    assert log.read_text().count("%|") == 1  # its last state


def test_what_would_fill_screens_is_in_the_log() -> None:
    made, out, variant = shown(Display)
    made.line(variant, "ERROR", "\n".join(f"line {number}" for number in range(2000)))
    made.line(variant, "stdout", "z" * 5_000_000)
    made.line(variant, "stdout", "short")
    text = out.getvalue()
    assert len(text) < 10_000
    for part in ("line 0", "line 19\n... 1,960 more lines", "line 1980\n", "line 1999", "short"):
        assert part in text
    assert "zz ... 4,996,000 more characters are in the log" in text


def test_the_live_display_counts_many_variants_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting takes 5 % of a core at most, however many there are."""
    live, _, _ = shown(LiveDisplay)
    assert isinstance(live, LiveDisplay)
    live.close()
    now, counts = [1000.0], []

    def count() -> Table:
        counts.append(now[0])
        now[0] += 0.1
        return Table.grid()

    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(live, "_count_stages", count)
    live._summary, live._cost = None, 0.0
    for _ in range(50):  # ten seconds
        live._render()
        now[0] += 0.2
    assert 4 <= len(counts) <= 6
