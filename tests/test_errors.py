"""Errors: how they are told, and that they survive a process."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

from flambe import errors
from flambe.errors import (
    ComponentError,
    ConfigError,
    FlambeError,
    Interrupted,
    Place,
    Problem,
    ResourceError,
    RunError,
    StateError,
    did_you_mean,
    listed,
)

PLACE = Place("a.yaml", 3, 5, 4, "  x: name")


def test_a_problem_with_all_its_parts() -> None:
    problem = Problem("no such name", PLACE, "did you mean 'game'?")
    assert str(problem) == (
        "a.yaml:3:5: no such name\n"
        "    3 |   x: name\n"
        "      |     ^^^^\n"
        "      = did you mean 'game'?"
    )


def test_a_problem_without_a_place() -> None:
    assert str(Problem("wrong")) == "wrong"
    assert str(Problem("wrong", hint="right")) == "wrong\n      = right"
    assert str(Problem("wrong", Place("a.yaml", 1, 1))) == "a.yaml:1:1: wrong"


def test_a_long_line_is_cut_around_the_caret() -> None:
    text = "x" * 500 + "HERE" + "y" * 500
    lines = Place("a.yaml", 1, 501, 4, text).excerpt().splitlines()
    assert max(map(len, lines)) < 130
    start = lines[1].index("^")
    assert lines[0][start : start + 4] == "HERE"
    assert lines[1].count("^") == 4


def test_a_caret_is_never_wider_than_its_line() -> None:
    for column, width in ((1, 100), (3, 100), (9, 5), (20, 1)):
        lines = Place("a", 1, column, width, "\tabc").excerpt().splitlines()
        assert "^" in lines[1]
        assert "\t" not in lines[0]


def test_a_configuration_error_takes_one_or_many() -> None:
    one, other = Problem("one", PLACE), Problem("other")
    assert ConfigError("one").problems == (Problem("one"),)
    assert ConfigError(one).problems == (one,)
    error = ConfigError([one, other, one])
    assert error.problems == (one, other)
    assert str(error) == f"{one}\n\n{other}"


@pytest.mark.parametrize(
    "error",
    [
        ConfigError([Problem("one", PLACE, "hint"), Problem("other")]),
        ComponentError("ValueError: x", PLACE, "building !X", "Traceback …"),
        ComponentError("x"),
        RunError("x"),
        ResourceError("x"),
        StateError("x"),
        Interrupted("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: FlambeError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.exit_code == error.exit_code


def test_exit_codes() -> None:
    codes = {ConfigError: 2, RunError: 1, ComponentError: 1, StateError: 1, Interrupted: 130}
    assert {kind: getattr(kind, "exit_code") for kind in codes} == codes  # noqa: B009
    assert all(issubclass(kind, FlambeError) for kind in codes)


def test_suggestions() -> None:
    assert did_you_mean("trainr", ["Trainer", "Other"]) == "did you mean 'Trainer'?"
    assert did_you_mean("zzz", ["Trainer"]) == ""
    assert did_you_mean("x", []) == ""
    assert did_you_mean(11, [1, 111]) == "did you mean '111'?"  # type: ignore[arg-type, list-item]


def test_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcd"), 2) == "a, b and 2 more"
    assert listed([]) == ""


def drawn_tree() -> dict[str, str]:
    """Return the tree in the docstring of the module: class → the class above it."""
    parents: dict[str, str] = {}
    path: dict[int, str] = {}  # indentation → class
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line):
            indent, name = len(match[1]), match[2]
            above = [path[other] for other in sorted(path) if other < indent]
            parents[name] = above[-1] if above else "Exception"
            path = {other: one for other, one in path.items() if other < indent} | {indent: name}
    return parents


def defined_tree() -> dict[str, str]:
    """Return the error classes of all modules: class → its first base, by their source."""
    bases: dict[str, str] = {}
    for module in (Path(errors.__file__).parent).rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.bases:
                bases[node.name] = ast.unparse(node.bases[0]).rpartition(".")[2]
    tree = {"FlambeError": "Exception"}
    while found := {n: base for n, base in bases.items() if base in tree and n not in tree}:
        tree |= found
    return tree


def test_every_error_class_stands_in_the_tree_that_the_module_draws() -> None:
    assert drawn_tree() == defined_tree()
