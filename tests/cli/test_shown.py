"""What is shown of a run is text, on any output, and never costs the run anything."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from flambe.cli.terminal import TextConsole
from flambe.logging.plain import plain
from flambe.progress import Status
from tests.cli.inline import Terminal, command, environment, flambe, state, write

pytestmark = pytest.mark.integration

# Rich takes these for markup, emoji codes, links.
MARKUP = ["[/INST]", "[mask]", "[bold]x", "[CLS]", ":smile:", "[@click=x]y", "[link=http://x]z"]
EVIL = "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\x07bell\x08"
MANY = """\
  a: !says.Says
    text: !g ["[/INST]", "[mask]", "[bold]x", ":smile:", "[@click=x]y", "漢字 é"]
"""


def test_plain_text_holds_no_orders_to_a_terminal() -> None:
    assert plain("as it is: [x] é 漢\ttab\nline") == "as it is: [x] é 漢\ttab\nline"
    assert plain(EVIL) == "redbell"
    for text in ("\x1b", "\x1b[", "\x1b]0;never ended", "\x1bP1$r\x1b\\", "\x9d8;;x\x9c", "\x1b(B"):
        assert "\x1b" not in plain(text)
        assert not any(0x7F <= ord(c) < 0xA0 or ord(c) < 9 for c in plain(text))
    assert plain("a\x1b]0;never ended") == "a0;never ended"
    assert plain("\x1b]8;;http://x\x1b\\shown\x1b]8;;\x1b\\") == "shown"


def test_every_place_of_a_console_shows_text(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

    shown = TextConsole(width=300, force_terminal=True)
    for text in [*MARKUP, EVIL]:
        table = Table(text, title=text, caption=text)
        table.add_row(text)
        tree = Tree(text)
        tree.add(text)
        smuggled = Text("x")
        smuggled._text[:] = [text]
        for thing in (text, table, tree, smuggled):
            shown.print(thing, style="bold")
            drawn = capsys.readouterr().out
            assert thing is smuggled or plain(text) in drawn
            for order in ("\x1b[2J", "\x1b[31m", "\x1b]", "\x07", "\x9b", "\x08"):
                assert order not in drawn


def test_a_run_shows_text_as_it_is(tmp_path: Path) -> None:
    done = flambe(tmp_path, write(tmp_path, MANY))
    assert done.returncode == 0, done.stderr
    for text in ("[/INST]", "[mask]", "[bold]x", ":smile:", "[@click=x]y", "漢字 é"):
        assert done.stdout.count(text) >= 3, text  # its name, what it says, and in the table
    assert "✔" in done.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "1"},
    ],
    ids=["latin-1", "ascii", "C", "narrow"],
)
def test_no_encoding_and_no_width_fails_a_run(tmp_path: Path, variables: dict[str, str]) -> None:
    config = write(tmp_path, MANY)
    done = flambe(tmp_path, config, **variables)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if "COLUMNS" not in variables:
        assert "[/INST]" in done.stdout
        assert "shown finished in" in done.stdout
    terminal = Terminal(tmp_path, config, "--force", **variables)
    drawn = terminal.read()
    assert terminal.code() == 0, drawn
    assert "finished" in drawn.replace("\r\n", "")
    if "PYTHONIOENCODING" in variables:
        assert "+ shown finished" in drawn
        assert "\\u6f22" in drawn


@pytest.mark.parametrize(
    "ways", [">&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "| head -1", ">/dev/full 2>&1"]
)
def test_nobody_needs_to_read_it(tmp_path: Path, ways: str) -> None:
    config = write(tmp_path, MANY)
    line = f"set -o pipefail; {shlex.join(command(config))} {ways}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment(tmp_path), capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert state(tmp_path).status is Status.FINISHED
    if ways in (">/dev/full", "| head -1"):
        assert done.stderr.count("nothing more is shown") == 1


def test_a_failure_has_its_exit_code_though_nobody_reads_why(tmp_path: Path) -> None:
    config = write(tmp_path, "  a: !says.Says {text: x, fails: true}", "max_failures: 0")
    for ways in (">/dev/full 2>&1", ">&- 2>&-"):
        done = subprocess.run(
            ["bash", "-c", f"{shlex.join(command(config, '--force'))} {ways}"], cwd=tmp_path,
            env=environment(tmp_path), capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "no luck with x" in state(tmp_path).error


def test_a_terminal_that_is_closed_interrupts_a_run_in_order(tmp_path: Path) -> None:
    config = write(tmp_path, "  a: !says.Says {text: on, steps: 1000, wait: 0.05}")
    terminal = Terminal(tmp_path, config)
    terminal.read(lambda drawn: drawn.count("on") > 5)
    terminal.hang_up()
    assert terminal.code() == 130
    assert state(tmp_path).status is Status.INTERRUPTED
    resumed = flambe(tmp_path, write(tmp_path, "  a: !says.Says {text: on, steps: 20}"), "--resume")
    assert resumed.returncode == 0


BROKEN = """
import sys
from pathlib import Path
from tests.experiment.lab import Lab, Watcher
from flambe.experiment.executors.inline import InlineExecutor
import logging
logging.basicConfig(level="WARNING")

class Broken(Watcher):
    def changed(self):
        raise RuntimeError("cannot draw")
    def ended(self):
        print("ended")

lab = Lab(Path(sys.argv[1]))
lab.write("a: !pieces.Curve {height: !g [1.0, 2.0]}")
lab.experiment().run(observer=Broken(), executor=InlineExecutor)
print(lab.folder.read_state().status.value)
"""


def test_an_observer_that_raises_costs_no_result(tmp_path: Path) -> None:
    import sys

    from tests.experiment import lab

    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)],
        env=environment(Path(lab.EXTENSIONS)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["ended", "finished"], done.stderr
    assert done.stderr.count("cannot be shown any more") == 1
    assert "cannot draw" in done.stderr


def test_escape_sequences_of_components_do_not_reach_the_terminal(tmp_path: Path) -> None:
    text = "before\\e[2Jcleared\\e]0;owned\\a\\e[31mred\\e[0m after"
    config = write(tmp_path, f'  a: !says.Says {{text: !g ["{text}"], fails: true}}')
    terminal = Terminal(tmp_path, config)
    drawn = terminal.read()
    assert terminal.code() == 1
    assert "beforeclearedred after" in drawn
    for order in ("\x1b[2J", "\x1b]0", "\x07"):
        assert order not in drawn
    done = flambe(tmp_path, config, "--force")
    assert "\x1b" not in done.stdout + done.stderr
    assert "no luck with beforeclearedred after" in done.stderr


def test_what_a_command_prints_has_any_name_in_any_encoding(tmp_path: Path) -> None:
    config = write(tmp_path, "  a: !says.Says {text: x}", name="shown")
    config = config.rename(tmp_path / "漢✔.yaml")
    done = flambe(tmp_path, "validate", config.name, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u6f22+.yaml is valid" in done.stdout
