"""The output of processes in messages."""

from __future__ import annotations

from flambe._process import quote_tail


def test_the_last_lines_are_quoted() -> None:
    assert quote_tail("one\ntwo\nthree\n\n", 2) == "\n  | two\n  | three"
    assert quote_tail("one\n", prefix="> ") == "\n> one"
    assert quote_tail(" \n\n") == ""
