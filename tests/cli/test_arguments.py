"""The command line: its options objects, its help, and its completion in shells."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from flambe.cli import main
from flambe.cli.arguments import COMMANDS, EPILOG, RunOptions, command_parser

COMPLETE = """
source {script}
COMP_WORDS=({words} "{last}")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_flambe flambe "{last}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_options_of_a_command_are_its_arguments(name: str) -> None:
    command, parser = COMMANDS[name], command_parser(name)
    destinations = {
        action.dest for action in parser._actions if action.default != argparse.SUPPRESS
    }
    _, options = command.load()
    fields = {field.name for field in dataclasses.fields(options)}
    # Every command has --verbose; only a run passes it on.
    assert fields | {"verbose"} == destinations | {"verbose"}


def test_the_help_lists_every_command() -> None:
    for name in COMMANDS:
        assert name == "run" or f"flambe {name}" in EPILOG


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "complete.bash").write_text(capsys.readouterr().out)
    (tmp_path / "stat.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        ("flambe", "sta", {"stat.yaml", "status"}),
        ("flambe stat.yaml", "--fo", {"--force"}),
        ("flambe stat.yaml --stale", "", {"rerun", "reuse"}),
        ("flambe stat.yaml train.lr=1 ~reduce", "--fo", {"--force"}),
        ("flambe plan stat.yaml train.lr=1", "--fo", {"--force"}),
        ("flambe status", "sta", {"stat.yaml"}),
        ("flambe down", "--a", {"--all"}),
        ("flambe completion", "", {"bash", "zsh"}),
    ],
)
def test_the_first_argument_is_a_command_or_a_file(
    folder: Path, words: str, last: str, expected: set[str]
) -> None:
    script = COMPLETE.format(script=folder / "complete.bash", words=words, last=last)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.split()) == expected


def test_the_script_for_zsh(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef flambe")
    assert "_describe 'flambe commands' _commands; _files" in script
    if zsh := shutil.which("zsh"):
        subprocess.run([zsh, "-n"], input=script, text=True, timeout=60, check=True)


@pytest.mark.parametrize("override", ["train.max_steps=5", "+train.lr=1", "~train.scheduler"])
def test_an_override_behind_fetch_is_no_folder(override: str) -> None:
    parser = command_parser("run")

    def options(*arguments: str) -> RunOptions:
        parsed = vars(parser.parse_intermixed_args(["x.yaml", *arguments]))
        names = {field.name for field in dataclasses.fields(RunOptions)}
        return RunOptions(**{name: value for name, value in parsed.items() if name in names})

    made = options("-c", "lab", "--fetch", override, "seed=3")
    assert (made.fetch, made.overrides) == ("", [override, "seed=3"])
    made = options("--fetch", "results/seed=3", override)
    assert (made.fetch, made.overrides) == ("results/seed=3", [override])
    assert options("--fetch", "~/results").fetch == "~/results"
