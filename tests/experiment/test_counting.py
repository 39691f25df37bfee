"""Options in options: what is counted is what is expanded, and what is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flambe.compile import Grid, Link, Sample, Schema
from flambe.compile.values import ClusterResource
from flambe.experiment.counting import count_variants
from flambe.experiment.search.spaces import distinct_values, values_of
from flambe.experiment.search.stage_search import StageSearch
from flambe.experiment.spec import ExperimentSpec, SearchSpec, StageSpec
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.identity import canonical
from tests.examples import examples
from tests.experiment.lab import Lab, flambe_here
from tests.experiment.test_variants import argument

Stages = dict[str, Any]


def walker(**kwargs: Any) -> Schema:
    return Schema("pieces:Fixed", "pieces.Fixed", [], kwargs)


def space(name: str, *args: Any) -> Schema:
    return Schema(f"ray.tune.search.sample:{name}", f"tune.{name}", list(args))


SPACES = [space("choice", [1, 2, 1]), space("randint", 0, 3), space("uniform", 0.0, 1.0)]
SCALARS = st.sampled_from([0, 1, "1", 1.0, True, None])


def nested(links: list[str], spaces: bool) -> st.SearchStrategy[Any]:
    leaves: list[Any] = [SCALARS, st.just(Sample(0, 3, 2)), st.just(Sample(0, 3, 3))]
    if links:
        leaves.append(st.sampled_from([Link(name) for name in links]))
    if spaces:  # others may draw what another element is: how often is known in the run
        leaves.append(st.just(SPACES[-1]))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda elements: Grid(tuple(elements))),
            st.lists(inner, min_size=1, max_size=2),
            st.dictionaries(st.sampled_from(["a", 1, "1"]), inner, min_size=1, max_size=2),
            inner.map(lambda value: walker(value=value)),
        ),
        max_leaves=6,
    )


@st.composite
def pipelines(draw: st.DrawFn) -> Stages:
    pipeline: Stages = {}
    for index in range(draw(st.integers(1, 3))):
        value = draw(nested(list(pipeline), True))
        other = draw(st.sampled_from([1, *SPACES, SPACES[:2]]) | nested(list(pipeline), False))
        pipeline[f"s{index}"] = walker(value=value, other=other)
    return pipeline


def expanded(keywords: Mapping[str, Any]) -> dict[str, list[Variant]]:
    """Return the variants that a run makes, which has no searcher."""
    expander = Expander(keywords["pipeline"], keywords.get("seed", 0))
    known: dict[str, list[Variant]] = {}
    for stage in keywords["pipeline"]:
        search = SearchSpec.read(keywords.get("search", {}).get(stage))
        found = StageSearch.of(StageSpec(stage, keywords["pipeline"][stage], search), 0)
        found.spaces = {"": walker()}
        known[stage] = found.draw(expander, expander.expand(stage, known))
    return known


@given(pipelines(), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=examples(150), deadline=None)
def test_the_count_is_that_of_the_different_variants(
    pipeline: Stages, samples: int, seed: int
) -> None:
    search = {stage: {"num_samples": samples} for stage in pipeline}
    keywords = {"pipeline": pipeline, "seed": seed, "search": search, "max_variants": 100_000}
    counts = {
        stage: count.count
        for stage, count in count_variants(ExperimentSpec.from_keywords(keywords)).items()
    }
    if sum(counts.values()) > 1000:
        return
    variants = expanded(keywords)
    assert counts == {stage: len(found) for stage, found in variants.items()}
    assert counts == {stage: len({one.id for one in found}) for stage, found in variants.items()}


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (Grid((1, 1)), 1),
        (Grid((1, True, 1.0, "1")), 4),
        (Grid((Sample(0, 9, 10), 3)), 10),
        (Grid((Grid((1, 2)), 3)), 3),
        (Grid((Grid((1, 2)), 2)), 2),
        (Grid(({"a": Grid((1, 2))}, {"b": 3})), 3),
        (Grid(({1: "x"}, {"1": "x"}, {1: "x"})), 2),
        (Grid(([Grid((5, 6))], [5])), 2),
        ([Grid((1, 1)), Grid((1, 1))], 1),
        (Grid((walker(value=Grid((1, 2))), walker(value=1))), 2),
        (Grid((walker(value=Grid((1, 2))), walker(other=1))), 3),
    ],
)
def test_equal_values_are_one_variant(value: Any, count: int) -> None:
    keywords = {"pipeline": {"a": walker(value=value)}}
    assert count_variants(ExperimentSpec.from_keywords(keywords))["a"].count == count
    assert len(expanded(keywords)["a"]) == count


def test_labels_of_options_in_options_say_what_was_chosen() -> None:
    value = Grid(([Grid((5, 6))], {"a": Grid((1, 2))}, Grid((7, 7)), walker(value=Grid((1, 2)))))
    chosen = [dict(one.choices) for one in expanded({"pipeline": {"a": walker(other=value)}})["a"]]
    assert [one["other"] for one in chosen] == [
        *("[5]", "[6]", '{"a":1}', '{"a":2}', 7),
        *("pieces.Fixed", "pieces.Fixed"),
    ]


# -- draws ------------------------------------------------------------------------------------


def drawn(value: Any, samples: int) -> list[Any]:
    keywords = {"pipeline": {"a": walker(value=value)}, "search": {"a": {"num_samples": samples}}}
    found = expanded(keywords)["a"]
    assert count_variants(ExperimentSpec.from_keywords(keywords))["a"].count == len(found)
    return sorted(argument(variant, "value") for variant in found)


def test_as_many_values_are_drawn_as_there_are_and_are_wanted() -> None:
    assert drawn(space("choice", [1, 2, 2, 3]), 6) == [1, 2, 3]
    assert drawn(space("randint", 0, 4), 4) == [0, 1, 2, 3]
    assert drawn(space("qrandint", 0, 6, 3), 9) == [0, 3, 6]
    assert drawn(space("quniform", 0.0, 1.0, 0.5), 9) == [0.0, 0.5, 1.0]
    assert drawn(space("lograndint", 1, 500), 499) == list(range(1, 500))  # the last are rare
    assert len(drawn(space("uniform", 0.0, 1.0), 7)) == 7
    pair = [space("choice", [1, 2]), space("randint", 0, 2)]
    assert drawn(pair, 6) == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert drawn(Grid((space("choice", [1, 2]), 7)), 3) == [1, 2, 7]


def test_sizes_of_spaces() -> None:
    assert distinct_values(space("randint", 0, 10**30)) == float("inf")
    assert distinct_values(space("uniform", 0, 1)) == float("inf")
    assert distinct_values(space("qrandn", 0, 1, 1)) == float("inf")
    assert distinct_values(space("choice", [1, 1.0, True])) == 3
    assert values_of(space("uniform", "a", 1)) is None


# -- identity ---------------------------------------------------------------------------------


def identity(config: object) -> str:
    """Return the identity of a stage with a configuration."""
    [variant] = Expander({"a": config}).expand("a", {})
    return variant.id


def test_different_values_have_different_identities() -> None:
    values: list[Any] = [
        *(1, 1.0, True, "1", "true", None, "null", [1], [[1]], float("inf"), "Infinity"),
        *({1: "x"}, {"1": "x"}, {1.0: "x"}, {True: "x"}, {"true": "x"}, {"True": "x"}),
        *(Link("a"), ["!@", "a"], "!@ a", ClusterResource("a"), ["!cluster", "a"]),
        *(["!map", [["1", "x"]]], ["!map", [[1, "x"]]], ["!list", ["!@", "a"]], ["!list", []]),
        ["!", "pieces:Fixed", [], {}, None],
        walker(),
    ]
    ids = [identity(value) for value in values]
    assert len(set(ids)) == len(ids)


def test_ordinary_identities_are_those_of_earlier_versions() -> None:
    value = {"a": [1, "!important", {"b": None}], "c": walker(value=Link("a"), other=[])}
    assert canonical(value) == {
        "a": [1, "!important", {"b": None}],
        "c": ["!", "pieces:Fixed", [], {"other": [], "value": ["!@", "a"]}, None],
    }
    assert canonical((1, 2)) == canonical([1, 2])  # a component is given a list in both cases
    assert identity({1: 0, 2: 1}) == identity({2: 1, 1: 0})


# -- through the command line -----------------------------------------------------------------


def test_what_is_run_is_what_is_planned(lab: Lab) -> None:
    more = "search: {c: {num_samples: 6}}"
    outcome = lab.run(
        """
        a: !pieces.Fixed {value: !g [1, 1, !g [2, 1], !s [0, 3, 4]], other: !g [{a: !g [1, 2]}, [!s [0, 1, 2]]]}
        b: !pieces.Fixed {other: !g [!@ a, !pieces.Fixed {value: !g [1, 1]}, 5]}
        c: !pieces.Fixed {value: !tune.choice [[1, 2, 3]], other: !@ b}
        """,
        more=more,
    ).fine()
    ran = {stage: len(outcome.of(stage)) for stage in "abc"}
    assert ran == {"a": 16, "b": 18, "c": 54}
    counted = count_variants(lab.experiment().spec())
    assert {stage: count.running for stage, count in counted.items()} == ran


def test_options_that_are_not_resolved_are_refused(lab: Lab) -> None:
    lab.write(
        """
        data: !pieces.Fixed {value: 1}
        a: !pieces.Fixed
          value: !tune.choice [[!pieces.Fixed {value: 1}, !@ data, 3]]
          other: !tune.choice [!g [[1, 2], [3]]]
        b: !pieces.Walk
          rate: !g [!tune.uniform [0.1, 1.0], 2.0, three]
          steps: !g [one, 2, two]
        c: !pieces.Walk
          rate: !tune.uniform [!s [0.1, 0.2, 2], 0.9]
        """,
        more="search: {b: {searcher: !ray.BasicVariantGenerator {}, num_samples: 4}}",
    )
    result = flambe_here("validate", lab.config)
    assert result.returncode == 2
    told = [line.partition("config.yaml:")[2] for line in result.stderr.splitlines()]
    assert [line for line in told if line] == [
        "12:26: !tune.choice does not draw options (!g)",
        "14:46: 'rate[2]' of !pieces.Walk cannot be 'three'",
        "15:16: 'steps[0]' of !pieces.Walk cannot be 'one'",
        "15:24: 'steps[2]' of !pieces.Walk cannot be 'two'",
        "17:26: !tune.uniform does not draw options (!s)",
    ]


def test_a_large_grid_is_refused_before_it_is_made(lab: Lab, tmp_path: Path) -> None:
    tens = ", ".join(["!g [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"] * 8)
    lab.write(f"a: !pieces.Fixed {{value: [{tens}]}}")
    result = flambe_here("validate", lab.config)
    assert result.returncode == 2
    assert "= 100,000,000 variants, more than max_variants (10,000)" in result.stderr
