"""Which stages wait for which, and which variants may start, without running any."""

from __future__ import annotations

from typing import Any

import pytest

from flambe.compile import Component, Link, Schema
from flambe.experiment.graph import StageGraph, VariantGraph
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.expansion import Variant


class Piece(Component):
    def __init__(self, of: Any = None, other: Any = None) -> None:
        self.of = of
        self.other = other


def graph(**keywords: Any) -> StageGraph:
    """Return the graph of a diamond and a stage beside it."""
    link = {name: Link(name) for name in ("data", "left", "right")}
    pipeline = {
        "data": Schema.of(Piece),
        "left": Schema.of(Piece, of=link["data"]),
        "right": Schema.of(Piece, of=link["data"]),
        "both": Schema.of(Piece, of=link["left"], other=link["right"]),
        "alone": Schema.of(Piece),
    }
    return StageGraph(ExperimentSpec.from_keywords({"pipeline": pipeline, **keywords}))


def test_ancestors_and_descendants() -> None:
    stages = graph()
    assert stages.ancestors["both"] == ["data", "left", "right"]
    assert stages.descendants["data"] == ["left", "right", "both"]
    assert (stages.ancestors["alone"], stages.descendants["alone"]) == ([], [])


@pytest.mark.parametrize(
    ("keywords", "both", "left"),
    [
        ({}, set(), set()),
        ({"reduce": {"left": 1}}, {"left"}, set()),
        ({"reduce": {"both": 1}}, set(), set()),
        ({"search": {"right": Schema.of(Piece)}}, {"right"}, set()),
        ({"schedulers": {"data": Schema.of(Piece)}}, {"data"}, {"data"}),
        ({"schedulers": {"both": Schema.of(Piece)}}, {"data", "left", "right"}, set()),
    ],
)
def test_what_asks_for_all_variants(
    keywords: dict[str, Any], both: set[str], left: set[str]
) -> None:
    stages = graph(**keywords)
    assert stages.ended_before("both") == both
    assert stages.ended_before("left") == left
    assert stages.ended_before("alone") == set()


def test_what_is_not_expanded_yet_waits_for_its_ancestors() -> None:
    totals = {"data": 1, "left": 2, "right": 3, "both": 6, "alone": 4}
    waiting = graph().waiting_totals(totals, expanded=["data", "left", "alone"])
    assert waiting == {"data": 9, "left": 6, "right": 6, "both": 0, "alone": 0}


def variant(name: str, **ancestry: str) -> Variant:
    return Variant(name, name[0], name, None, ancestry=ancestry)


def test_a_variant_starts_when_the_last_of_its_own_ancestors_is_done() -> None:
    variants = VariantGraph()
    assert variants.add(variant("a1"))
    assert variants.add(variant("a2"))
    c1, c2 = variant("c1", a="a1", b="b1"), variant("c2", a="a2", b="b1")
    assert not variants.add(variant("b1", a="a1"))
    assert not variants.add(c1)
    assert not variants.add(c2)
    assert variants.waiting_in == {"b": 1, "c": 2}
    assert [variants.weight(name) for name in ("a1", "a2", "b1", "c1")] == [2, 1, 2, 0]
    assert [one.id for one in variants.finish("a1")] == ["b1"]
    assert variants.finish("b1") == [c1]
    assert variants.finish("a2") == [c2]
    assert not variants.waiting


def test_a_failure_excludes_what_depends_on_it_and_nothing_else() -> None:
    variants = VariantGraph()
    for name in ("a1", "a2"):
        variants.add(variant(name))
    lost = [variant("b1", a="a1"), variant("c1", a="a1", b="b1")]
    for one in (lost[0], variant("b2", a="a2"), lost[1]):
        variants.add(one)
    assert variants.exclude("a1") == lost
    assert [one.id for one in variants.finish("a2")] == ["b2"]
    assert variants.is_excluded(variant("d1", a="a1", c="c1"))
    assert not variants.is_excluded(variant("d2", a="a2", b="b2"))
    assert not variants.is_ready(lost[1])
    assert variants.finish("a1") == []
