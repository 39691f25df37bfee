"""Properties of the expansion of stages into variants."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flambe.compile import Grid, Link, Sample, Schema
from flambe.compile.values import walk
from flambe.experiment.variants.expansion import Expander, Variant, folder_name
from flambe.experiment.variants.inputs import Inputs
from flambe.experiment.variants.options import short_names
from tests.examples import examples
from tests.experiment.lab import environment

Stages = dict[str, Any]


def walker(**kwargs: Any) -> Schema:
    return Schema("pieces:Walk", "pieces.Walk", [], kwargs)


def leaf(**kwargs: Any) -> Schema:
    return Schema("pieces:Leaf", "pieces.Leaf", [], kwargs)


def argument(variant: Variant, name: str) -> Any:
    """Return an argument of the blueprint of a variant."""
    assert isinstance(variant.config, Schema)
    return variant.config.kwargs[name]


def expand(
    pipeline: Stages, seed: int = 0, contents: Mapping[str, str] | None = None
) -> dict[str, list[Variant]]:
    expander = Expander(pipeline, seed, inputs=Inputs(contents=contents or {}))
    known: dict[str, list[Variant]] = {}
    for stage in pipeline:
        known[stage] = expander.expand(stage, known)
    return known


# -- random pipelines ---------------------------------------------------------------------------


@st.composite
def pipelines(draw: st.DrawFn, links_in_options: bool = True) -> Stages:
    pipeline: Stages = {}
    for index in range(draw(st.integers(1, 5))):
        kwargs: Stages = {}
        for option in range(draw(st.integers(0, 2))):
            values = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
            kwargs[f"option{option}"] = Grid(tuple(values))
        above = list(pipeline)
        if above:
            linked = draw(st.lists(st.sampled_from(above), max_size=3))
            for number, name in enumerate(linked):
                # The same stage twice and through an attribute, too: that must not multiply.
                attributes = draw(st.sampled_from([(), ("value",)]))
                kwargs[f"link{number}"] = Link(name, (), attributes)
            if links_in_options and draw(st.booleans()):
                elements: list[Any] = [
                    Link(name)
                    for name in draw(st.lists(st.sampled_from(above), max_size=2, unique=True))
                ]
                if draw(st.booleans()):
                    elements.append(leaf(other=Link(draw(st.sampled_from(above))), size=index))
                elements += draw(st.sampled_from([[], [1], [1, 2]]))
                if elements:
                    kwargs["choice"] = Grid(tuple(elements))
        pipeline[f"stage{index}"] = walker(**kwargs)
    return pipeline


# -- what is expected, found by brute force -----------------------------------------------------
# A way through a pipeline is one choice for each option of each stage. The variants of a stage are
# the different restrictions of all ways to the stages that it then depends on.


def resolved(value: Any, choices: Mapping[Any, int], path: tuple[Any, ...]) -> Any:
    if isinstance(value, Grid):
        return resolved(value.elements[choices[path]], choices, path)
    if isinstance(value, Schema):
        kwargs = {k: resolved(v, choices, (*path, k)) for k, v in value.kwargs.items()}
        return (value.tag, tuple(sorted(kwargs.items())))
    return str(value) if isinstance(value, Link) else value


def needs(value: Any) -> set[str]:
    if isinstance(value, tuple):
        return {name for part in value for name in needs(part)}
    if isinstance(value, str) and value.startswith("stage"):
        return {value.partition(".")[0]}
    return set()


def brute_force(pipeline: Stages) -> dict[str, set[Any]]:
    options = {
        (stage, *path): range(len(child.elements))
        for stage, value in pipeline.items()
        for path, child in walk(value)
        if isinstance(child, Grid)
    }
    found: dict[str, set[Any]] = {stage: set() for stage in pipeline}
    for combination in itertools.product(*options.values()):
        way = dict(zip(options, combination, strict=True))
        configs = {stage: resolved(value, way, (stage,)) for stage, value in pipeline.items()}
        closed: dict[str, set[str]] = {}
        for stage, config in configs.items():
            direct = needs(config[1])
            closed[stage] = direct | {name for parent in direct for name in closed[parent]}
            found[stage].add(
                tuple((name, configs[name]) for name in sorted({stage, *closed[stage]}))
            )
    return found


def ways(pipeline: Stages) -> int:
    return math.prod(
        len(child.elements)
        for value in pipeline.values()
        for _, child in walk(value)
        if isinstance(child, Grid)
    )


@given(pipelines())
@settings(max_examples=examples(300), deadline=None)
def test_variants_are_those_of_a_brute_force_join(pipeline: Stages) -> None:
    if ways(pipeline) > 3000:
        return
    known = expand(pipeline)
    by_id = {variant.id: variant for variants in known.values() for variant in variants}
    expected = brute_force(pipeline)
    for stage, variants in known.items():
        found = []
        for variant in variants:
            members = [variant, *(by_id[parent] for parent in variant.ancestry.values())]
            found.append(
                tuple(
                    (member.stage, resolved(member.config, {}, ()))
                    for member in sorted(members, key=lambda m: m.stage)
                )
            )
        assert len(found) == len(set(found)), "a variant is there twice"
        assert set(found) == expected[stage]


@given(pipelines(links_in_options=False))
@settings(max_examples=examples(200), deadline=None)
def test_the_count_is_own_options_times_joined_ancestors(pipeline: Stages) -> None:
    """Where links don't depend on options, all options of the closure multiply, each once."""
    known = expand(pipeline)
    own = {
        stage: math.prod(len(v.elements) for v in schema.kwargs.values() if isinstance(v, Grid))
        for stage, schema in pipeline.items()
    }
    closed: dict[str, set[str]] = {}
    for stage, schema in pipeline.items():
        direct = {v.root for v in schema.kwargs.values() if isinstance(v, Link)}
        closed[stage] = {stage} | {name for parent in direct for name in closed[parent]}
        assert len(known[stage]) == math.prod(own[name] for name in closed[stage])


@given(pipelines())
@settings(max_examples=examples(150), deadline=None)
def test_variants_of_one_ancestor_stay_paired(pipeline: Stages) -> None:
    known = expand(pipeline)
    by_id = {variant.id: variant for variants in known.values() for variant in variants}
    for variants in known.values():
        for variant in variants:
            assert variant.parents.items() <= variant.ancestry.items()
            for stage, parent in variant.ancestry.items():
                assert by_id[parent].stage == stage
                assert by_id[parent].ancestry.items() <= variant.ancestry.items()
                assert by_id[parent].choices.items() <= variant.choices.items()


@given(pipelines())
@settings(max_examples=examples(150), deadline=None)
def test_ids_and_folders_are_unique_and_safe(pipeline: Stages) -> None:
    known = expand(pipeline)
    variants = [variant for stage in known.values() for variant in stage]
    assert len({variant.id for variant in variants}) == len(variants)
    assert len({(variant.stage, variant.name) for variant in variants}) == len(variants)
    for variant in variants:
        assert re.fullmatch(r"[\w.=,+#-]{1,110}", variant.name, re.ASCII)


def reordered(value: Any) -> Any:
    if isinstance(value, Schema):
        kwargs = {key: reordered(child) for key, child in reversed(value.kwargs.items())}
        return Schema(value.target, value.tag, value.args, kwargs)
    if isinstance(value, dict):
        return {key: reordered(child) for key, child in reversed(value.items())}
    if isinstance(value, Grid):
        return Grid(tuple(map(reordered, value.elements)))
    return value


@given(pipelines())
@settings(max_examples=examples(150), deadline=None)
def test_ids_do_not_depend_on_the_order_of_keywords(pipeline: Stages) -> None:
    one = expand(pipeline)
    other = expand({stage: reordered(value) for stage, value in pipeline.items()})
    for stage, variants in one.items():
        assert {v.id for v in variants} == {v.id for v in other[stage]}


def test_mappings_inside_keywords_may_be_in_any_order_too() -> None:
    one = expand({"a": walker(extra={"x": Grid((1, 2)), "y": {"p": 1, "q": [1, 2]}})})
    other = expand({"a": walker(extra={"y": {"q": [1, 2], "p": 1}, "x": Grid((1, 2))})})
    assert [v.id for v in one["a"]] == [v.id for v in other["a"]]


CHANGES: list[tuple[str, Any]] = [
    ("another value", lambda p: {**p, "model": walker(rate=2)}),
    ("an int where a float was", lambda p: {**p, "model": walker(rate=1.0, steps=3)}),
    ("text where a number was", lambda p: {**p, "model": walker(rate="1")}),
    ("true where 1 was", lambda p: {**p, "model": walker(rate=True)}),
    ("one more keyword", lambda p: {**p, "model": walker(rate=1, extra=None)}),
    ("another class", lambda p: {**p, "model": leaf(rate=1)}),
    ("a list where a number was", lambda p: {**p, "model": walker(rate=[1])}),
]


@pytest.mark.parametrize(("what", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_any_change_of_an_ancestor_changes_all_ids_below(what: str, change: Any) -> None:
    pipeline: Stages = {
        "model": walker(rate=1),
        "train": walker(start=Link("model"), rate=Grid((1, 2))),
        "evaluate": walker(start=Link("train")),
        "other": walker(rate=Grid((1, 2))),
    }
    before, after = expand(pipeline), expand(change(pipeline))
    for stage in ("model", "train", "evaluate"):
        assert not {v.id for v in before[stage]} & {v.id for v in after[stage]}, what
    assert [v.id for v in before["other"]] == [v.id for v in after["other"]]


def test_the_seed_the_stage_and_what_it_links_to_are_part_of_the_identity() -> None:
    pipeline: Stages = {"a": walker(rate=1), "b": walker(rate=1)}
    known = expand(pipeline)
    assert known["a"][0].id != known["b"][0].id
    assert known["a"][0].id != expand(pipeline, seed=1)["a"][0].id
    # A resource that nobody links to is part of none.
    assert known["a"][0].id == expand(pipeline, contents={"text": "1"})["a"][0].id
    linked: Stages = {"a": walker(rate=Link("text")), "b": walker(start=Link("a"))}
    one, other = (expand(linked, contents={"text": content}) for content in "12")
    for stage in linked:
        assert one[stage][0].id != other[stage][0].id
        assert one[stage][0].config_id == other[stage][0].config_id


def test_what_is_written_twice_is_one_variant() -> None:
    known = expand({"a": walker(rate=Grid((1, 2, 1))), "b": walker(start=Link("a"))})
    assert [argument(v, "rate") for v in known["a"]] == [1, 2]
    assert len(known["b"]) == 2
    # These are not the same.
    values = (1, 1.0, True, "1", 0.1, 0.1000000001)
    known = expand({"a": walker(rate=Grid(values))})
    assert [argument(v, "rate") for v in known["a"]] == list(values)
    assert len({v.name for v in known["a"]}) == len(values)


def test_what_is_added_to_a_grid_leaves_the_others_as_they_are() -> None:
    before = expand({"a": walker(rate=Grid((1, 2)))})["a"]
    after = expand({"a": walker(rate=Grid((3, 2, 1)))})["a"]
    assert {v.id for v in before} < {v.id for v in after}
    assert {v.name for v in before} < {v.name for v in after}


SCRIPT = """
import json, sys
from flambe.compile import Grid, Link, Sample, Schema
from flambe.experiment.variants.expansion import Expander
def walker(**kwargs): return Schema("pieces:Walk", "pieces.Walk", [], kwargs)
pipeline = {
    "a": walker(rate=Sample(0.1, 9.5, 4, None), extra={"x": Grid(("p", "q")), "y": 1}),
    "b": walker(start=Link("a"), steps=Sample(1, 100, 3), extra=Grid((Link("a", (), ("value",)), 1))),
}
expander, known = Expander(pipeline, 7), {}
for stage in pipeline:
    known[stage] = expander.expand(stage, known)
print(json.dumps([[v.id, v.name, dict(v.choices)] for s in known.values() for v in s]))
"""


def test_the_ids_of_earlier_versions() -> None:
    """Results are found by their ids: those of a configuration must stay what they are."""
    pipeline: Stages = {
        "a": walker(rate=Sample(0.1, 9.5, 4, None), extra={"x": Grid(("p", "q")), "ü": "ü"}),
        "b": walker(
            start=Link("a"), text=Link("text"), keys={1: "a", 2: [1, "!", 2]}, plain=["!g", {"z": 1}],
            own=Link("b", ("x",)), extra=Grid((Link("a", (), ("value",)), 1, walker(x=1.5), [True])),
        ),
    }  # fmt: skip
    inputs = Inputs({"pieces:Walk": "abc"}, {"text": "h"})
    expander = Expander(pipeline, 7, {"text": "./x"}, inputs, all_resources=True)
    known: dict[str, list[Variant]] = {}
    for stage in pipeline:
        known[stage] = expander.expand(stage, known)
    ids = [[v.id, v.config_id, v.name] for v in [*known["a"], *known["b"]]]
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    assert digest == "c8d81fb4bc5e53dd66178c394c3300e9627fa28ed9ae7242727a4a60feaa740e"


def test_the_same_in_every_process() -> None:
    outputs = set()
    for seed in ("1", "2", "random"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment(PYTHONHASHSEED=seed),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())) == 8 + 8 * 3 * 2


# -- samples ------------------------------------------------------------------------------------


@given(
    low=st.integers(-1000, 1000),
    width=st.integers(0, 500),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=examples(100), deadline=None)
def test_ints_are_drawn_between_the_bounds_and_differ(
    low: int, width: int, share: float, seed: int
) -> None:
    n = max(1, int(share * (width + 1)))
    pipeline: Stages = {"a": walker(steps=Sample(low, low + width, n))}
    values = [argument(v, "steps") for v in expand(pipeline, seed)["a"]]
    assert len(values) == len(set(values)) == n
    assert all(type(value) is int and low <= value <= low + width for value in values)
    assert values == [argument(v, "steps") for v in expand(pipeline, seed)["a"]]


@given(
    low=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    n=st.integers(1, 20),
    decimals=st.none() | st.integers(5, 8),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=examples(100), deadline=None)
def test_floats_are_drawn_between_the_bounds(
    low: float, width: float, n: int, decimals: int | None, seed: int
) -> None:
    pipeline: Stages = {"a": walker(rate=Sample(low, low + width, n, decimals))}
    values = [argument(v, "rate") for v in expand(pipeline, seed)["a"]]
    slack = 0.0 if decimals is None else 10.0**-decimals
    assert len(set(values)) == n
    for value in values:
        assert type(value) is float
        assert low - slack <= value <= low + width + slack
        if decimals is not None:
            assert value == round(value, decimals)


def test_rounded_samples_stay_between_their_bounds() -> None:
    """Bounds that are finer than the decimals: rounding must not step over them."""
    for seed in range(50):
        values = expand({"a": walker(rate=Sample(0.14, 0.46, 3, 1))}, seed)["a"]
        assert {argument(v, "rate") for v in values} == {0.2, 0.3, 0.4}


def test_samples_depend_on_the_seed_and_on_their_place_only() -> None:
    def drawn(pipeline: Stages, stage: str, seed: int = 0) -> list[float]:
        return [argument(v, "rate") for v in expand(pipeline, seed)[stage]]

    sample = Sample(0.0, 1.0, 3)
    alone: Stages = {"a": walker(rate=sample)}
    assert drawn(alone, "a") != drawn(alone, "a", seed=1)
    assert drawn(alone, "a") == drawn({"z": walker(rate=sample), **alone}, "a")
    assert drawn(alone, "a") != drawn({"b": walker(rate=sample)}, "b")


# -- names --------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.text(max_size=200) | st.floats(allow_nan=True) | st.integers() | st.booleans(),
        max_size=6,
    )
)
@settings(max_examples=examples(200), deadline=None)
def test_a_folder_name_is_safe_whatever_was_chosen(choices: dict[str, Any]) -> None:
    name = folder_name("stage", choices, "0123456789ab")
    assert re.fullmatch(r"[\w.=,+#-]+", name, re.ASCII)
    assert len(name) < 120
    assert name not in (".", "..")
    assert name.endswith("_01234567")


def test_names_are_as_short_as_they_can_be() -> None:
    pipeline: Stages = {
        "model": leaf(size=Grid((1, 2)), other=leaf(size=Grid((1, 2)))),
        "train": walker(rate=Grid((1, 2)), extra=[Grid((1, 2)), Grid((3, 4))]),
    }
    assert short_names(pipeline) == {
        ("model", "size"): "model.size",
        ("model", "other", "size"): "other.size",
        ("train", "rate"): "rate",
        ("train", "extra", 0): "extra.0",
        ("train", "extra", 1): "extra.1",
    }


def test_choices_of_components_and_links_read_like_the_file() -> None:
    pipeline: Stages = {
        "m": walker(),
        "t": walker(
            extra=Grid((leaf(size=1), leaf(size=2), Link("m", (), ("value",)), None, "x/y"))
        ),
    }
    variants = expand(pipeline)["t"]
    assert [v.choices["extra"] for v in variants] == [
        "pieces.Leaf#0",
        "pieces.Leaf#1",
        "m.value",
        None,
        "x/y",
    ]
    assert variants[4].name.startswith("extra=x-y_")


def test_an_option_inside_an_option_multiplies_its_element_only() -> None:
    pipeline: Stages = {
        "a": walker(extra=Grid((leaf(size=Grid((1, 2, 3))), leaf(size=9), 0)), rate=Grid((1, 2)))
    }
    assert len(expand(pipeline)["a"]) == (3 + 1 + 1) * 2


def test_a_stage_may_be_an_option_itself() -> None:
    pipeline: Stages = {
        "model": Grid((walker(rate=Grid((1, 2))), leaf(size=5))),
        "train": walker(start=Link("model")),
    }
    known = expand(pipeline)
    assert [len(variants) for variants in known.values()] == [3, 3]
    assert [v.choices.get("model") for v in known["train"]] == [
        "pieces.Walk",
        "pieces.Walk",
        "pieces.Leaf",
    ]


# -- size ---------------------------------------------------------------------------------------


def test_ten_thousand_variants() -> None:
    pipeline: Stages = {
        "model": walker(steps=Grid(tuple(range(10))), rate=Sample(0.0, 1.0, 10)),
        "train": walker(start=Link("model"), extra=leaf(size=Grid(tuple(range(100))))),
        "evaluate": walker(start=Link("train"), extra=Link("model")),
    }
    known = expand(pipeline)
    assert len(known["evaluate"]) == 10_000
    assert len({v.id for v in known["evaluate"]}) == 10_000
    assert len({v.name for v in known["evaluate"]}) == 10_000
