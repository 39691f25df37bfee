"""Figures that are NaN, infinite or missing: ranked, written and read the same everywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from flambe.progress import (
    RunFolder,
    apply_line,
    better,
    change_line,
    figure_text,
    rank,
    ranked,
)
from flambe.progress.state import VariantState

NAN, INF = math.nan, math.inf


def strict(text: str) -> object:
    """Read JSON as other readers do: a bare NaN is a mistake."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_numbers_come_first_then_nan_then_what_is_missing() -> None:
    figures = [None, NAN, -INF, 0.5, INF, NAN, 2, None, -1.0]
    shown = [figure_text(figure) for figure in ranked(figures, lambda figure: figure)]
    assert shown == ["inf", "2", "0.5", "-1", "-inf", "nan", "nan", "", ""]


def test_the_order_does_not_depend_on_where_a_nan_stands() -> None:
    for figures in ([NAN, 0.5, 0.7], [0.5, NAN, 0.7], [0.7, 0.5, NAN]):
        assert sorted(figures, key=rank)[:2] == [0.7, 0.5]


@pytest.mark.parametrize(
    ("first", "second", "best"),
    [
        (NAN, 0.5, 0.5),
        (0.5, NAN, 0.5),
        (None, 0.5, 0.5),
        (0.5, None, 0.5),
        (0.5, 0.7, 0.7),
        (-INF, NAN, -INF),
        (INF, 0.5, INF),
        (NAN, NAN, None),
        (None, NAN, None),
        (None, None, None),
    ],
)
def test_the_better_one_is_a_number(
    first: float | None, second: float | None, best: float | None
) -> None:
    assert better(first, second) == best


@pytest.mark.parametrize("figure", [NAN, INF, -INF, 0.5, None])
def test_a_line_of_the_journal_is_strict_json_and_tells_nan_from_nothing(
    figure: float | None,
) -> None:
    line = change_line({"id": "a", "stage": "s", "name": "n", "metric": figure, "best": figure})
    told = strict(line)
    assert isinstance(told, dict)
    if figure is not None and not math.isfinite(figure):
        assert told["metric"] is None
        assert told["not_finite"] == {"metric": str(figure), "best": str(figure)}
    variants: dict[str, VariantState] = {}
    apply_line(variants, told)
    assert repr(variants["a"].metric) == repr(figure)
    # What was known before is known no more.
    apply_line(variants, {"id": "a", "metric": 0.25})
    assert variants["a"].metric == 0.25


def test_hyper_parameters_that_are_infinite_are_read_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    line = {"id": "a", "stage": "s", "name": "n", "choices": {"clip": INF}, "values": {"s[x]": INF}}
    folder.variants.write_text(change_line(line), encoding="utf-8")
    [entry] = folder.read_variants().values()
    assert (entry.choices, entry.values) == ({"clip": INF}, {"s[x]": INF})


def test_what_names_a_value_that_is_there_or_is_no_name_says_nothing() -> None:
    variants: dict[str, VariantState] = {}
    apply_line(variants, {"id": "a", "stage": "s", "name": "n"})
    for names in ({"metric": "nan"}, {"metric": 3}, ["nan"], "nan", {"metric": "1e999"}):
        apply_line(variants, {"id": "a", "metric": 0.5, "not_finite": names})
        assert variants["a"].metric == 0.5
    for names in ({"metric": 3}, ["nan"], {"metric": "1e999"}):
        apply_line(variants, {"id": "a", "metric": None, "not_finite": names})
        assert variants["a"].metric is None
