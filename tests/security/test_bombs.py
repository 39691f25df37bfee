"""Small files that would make much work: refused, or read in a time that is linear in the file.

``flambe validate`` expanded all variants of all stages: 18 stages of two links each took 51 s and
0.9 GB, twelve grids of ten would have taken for ever. Their number is computed and bounded now.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flambe.cli.main import main
from flambe.compile import Grid, Link, Sample, Schema
from flambe.errors import ConfigError
from flambe.experiment import Experiment, counting
from flambe.experiment.counting import count_variants
from flambe.experiment.plan import plan
from flambe.experiment.search import Search
from flambe.experiment.variants import Expander, Variant, domains
from tests.experiment.test_variants import Stages, expand, leaf, pipelines, walker

HEADER = "pieces: ./pieces\n---\n!Experiment\nname: bomb\npipeline:\n"
TEN = "!g [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


def space() -> Schema:
    return Schema("ray.tune.search.sample:Float", "tune.uniform", [0.0, 1.0], {})


def counts(pipeline: Stages, **keywords: Any) -> list[int]:
    known = count_variants({"pipeline": pipeline, "max_variants": 100_000, **keywords})
    return [stage.running for stage in known.values()]


# -- the number of variants is that of the variants that are made ---------------------------------


@given(pipelines())
@settings(max_examples=200, deadline=None)
def test_the_computed_number_is_that_of_the_expansion(pipeline: Stages) -> None:
    """Links to one ancestor stay paired, links in options and options in options included."""
    if max(counts(pipeline)) <= 2000:
        assert counts(pipeline) == [len(variants) for variants in expand(pipeline).values()]


def test_options_inside_options_samples_and_stages_that_are_options() -> None:
    pipeline: Stages = {
        "model": Grid((walker(rate=Grid((1, 2))), leaf(size=Sample(1, 100, 5)), 7)),
        "other": walker(extra=[Grid((Grid((1, 2)), {"x": Grid((1, 2, 3))})), Sample(0.0, 1.0, 2)]),
        "mixed": Grid((Link("model"), walker(start=Link("other"), rate=Grid((1, 2))), 1)),
        "both": walker(start=Link("mixed"), extra=[Link("model"), Link("other"), Link("both")]),
        "last": walker(start=Grid((Link("mixed"), Link("both"), Link("resource")))),
    }
    assert counts(pipeline) == [8, 10, 29, 320, 350]
    assert counts(pipeline) == [len(variants) for variants in expand(pipeline).values()]


def tried(pipeline: Stages, stage: str, search: Search, most: int | None) -> list[int]:
    """Return how many variants there are if one stage is searched, and reduced to a number."""
    expander = Expander(pipeline)
    known: dict[str, list[Variant]] = {}
    sizes = []
    for name in pipeline:
        bases = expander.expand(name, known)
        if any(domains(base.config) for base in bases):
            tries = range(search.num_samples)
            pairs = (
                zip(itertools.cycle(bases), tries, strict=False)
                if search.searcher
                else itertools.product(bases, tries)
            )
            bases = [expander.suggest(base, {f"{name}[rate]": number}) for base, number in pairs]
        sizes.append(len(bases))
        known[name] = bases[:most] if name == stage else bases
    return sizes


@given(
    pipelines(links_in_options=False),
    st.integers(0, 4),
    st.integers(1, 7),
    st.integers(1, 9) | st.none(),
    st.sampled_from(["no", "draw", "search"]),
)
@settings(max_examples=150, deadline=None)
def test_searched_drawn_and_reduced_stages(
    pipeline: Stages, position: int, samples: int, most: int | None, method: str
) -> None:
    stage = list(pipeline)[position % len(pipeline)]
    if method != "no":
        pipeline[stage].kwargs["rate"] = space()
    search = {"num_samples": samples, "searcher": walker() if method == "search" else None}
    keywords: Stages = {"search": {stage: search} if method != "no" else {}}
    if most is not None:
        keywords["reduce"] = {stage: most}
    found = counts(pipeline, **keywords)
    if max(found) <= 1000:
        assert found == tried(pipeline, stage, Search.read(search), most)
        assert [row.count for row in plan({"pipeline": pipeline, **keywords})] == found


@given(pipelines(), st.lists(st.integers(1, 4), min_size=5, max_size=5))
@settings(max_examples=100, deadline=None)
def test_what_is_reduced_is_never_more_than_all(pipeline: Stages, kept: list[int]) -> None:
    reduce = dict(zip(pipeline, kept, strict=False))
    assert all(
        1 <= some <= every
        for some, every in zip(counts(pipeline, reduce=reduce), counts(pipeline), strict=True)
    )


def test_equal_ways_do_not_multiply_in_a_run() -> None:
    """Two equal links are one variant: a diamond below them squared their number at each step."""
    pipeline: Stages = {"p0": walker(rate=Grid((1, 1)))}
    for level in range(6):
        pipeline[f"q{level}"] = walker(start=Link(f"p{level}"))
        pipeline[f"r{level}"] = walker(start=Link(f"p{level}"))
        pipeline[f"p{level + 1}"] = walker(start=Link(f"q{level}"), extra=Link(f"r{level}"))
    assert all(len(variants) <= 2 for variants in expand(pipeline).values())


# -- and it is bounded ----------------------------------------------------------------------------


def tens(number: int) -> str:
    return f"{HEADER}  train: !pieces.Walk\n    extra: [{', '.join([TEN] * number)}]\n"


def linked_twice(number: int) -> str:
    lines = ["  s0: !pieces.Walk {steps: 1}"]
    lines += [f"  s{n}: !g [!@ s{n - 1}, !@ s{n - 1}]" for n in range(1, number)]
    return HEADER + "\n".join(lines) + "\n"


def grid(number: int) -> str:
    return f"{HEADER}  a: !pieces.Walk\n    rate: !g [{', '.join(map(str, range(number)))}]\n"


def chain(number: int) -> str:
    lines = ["  s0: !pieces.Walk\n    steps: 1"]
    lines += [f"  s{n}: !pieces.Walk\n    start: !@ s{n - 1}" for n in range(1, number)]
    return HEADER + "\n".join(lines) + "\n"


def crossing(number: int) -> str:
    """Each stage links to one of two stages, in every option: all combinations differ."""
    lines = [f"  {name}{n}: !pieces.Walk {{steps: 1}}" for n in range(number) for name in "ab"]
    links = ", ".join(f"!g [!@ a{n}, !@ b{n}]" for n in range(number))
    return HEADER + "\n".join(lines) + f"\n  all: !pieces.Walk\n    extra: [{links}]\n"


BOMBS = {
    "18 stages that link twice": (linked_twice(18), "20:8: stage 's14' has 2 × 2 × 2 "),
    "60 stages that link twice": (linked_twice(60), "20:8: stage 's14' has 2 × 2 × 2 "),
    "three tens": (tens(3), ""),
    "six tens": (tens(6), f"6:10: stage 'train' has {' × '.join(['10'] * 6)} = 1,000,000 variants"),
    "twelve tens": (
        tens(12),
        " × 10 = 1,000,000,000,000 variants, more than max_variants (10,000)",
    ),
    "5,000 tens": (tens(5000), "10 × … (4994 more) × 10 = about 10^5000 variants"),
    "a long grid": (grid(20_001), "stage 'a' has 20,001 variants"),
    "a long sample": (grid(0).replace("!g []", "!s [0.0, 1.0, 100000]"), "has 100,000 variants"),
    "grids in grids": (
        tens(1).replace("9]]", f"{', '.join(['!g [' + ', '.join([TEN] * 40) + ']'] * 30)}]]"),
        "stage 'train' has 12,009 variants",
    ),
    "links in options": (crossing(40), " × 2 = 1,099,511,627,776 variants"),
    "draws": (
        f"{HEADER}  a: !pieces.Walk\n    rate: !tune.uniform [0.0, 1.0]\n    extra: {TEN}\n"
        "search: {a: {num_samples: 1000000000}}\n",
        "stage 'a' has 10 × 1,000,000,000 = 10,000,000,000 variants",
    ),
    "a search": (
        f"{HEADER}  a: !pieces.Walk\n    rate: !tune.uniform [0.0, 1.0]\n"
        "search: {a: {num_samples: 1000000000, searcher: !tune.BasicVariantGenerator }}\n",
        "stage 'a' has 1,000,000,000 variants",
    ),
    "many stages": (
        tens(3) + "".join(f"  s{n}: !pieces.Walk {{start: !@ train}}\n" for n in range(200)),
        "the stages up to 's99' have 101,000 variants in all, more than 10 times max_variants",
    ),
    "what reduce masks": (
        f"{tens(3)}  after: !pieces.Walk\n    start: !@ train\n    extra: [{TEN}, {TEN}]\n"
        "reduce: {train: 1}\n",
        "stage 'after' has 10 × 10 × 10 × 10 × 10 = 100,000 variants",
    ),
    "a huge bound": (tens(12) + "max_variants: 1000000000000\n", "max_variants cannot be 10000"),
    "no bound": (tens(1) + "max_variants: 0\n", "max_variants cannot be 0"),
    "a lower bound": (
        tens(3) + "max_variants: 999\n",
        "1,000 variants, more than max_variants (999)",
    ),
    "a higher bound": (tens(4).replace(TEN, TEN[:-1] + ", 10]") + "max_variants: 14641\n", ""),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_variants_are_refused_with_their_product(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = BOMBS[name]
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    assert main(["validate", str(path)]) == (2 if message else 0)
    shown = capsys.readouterr().err
    assert message in shown
    if message:
        assert re.match(rf"error: {re.escape(str(path))}:\d+:\d+: ", shown)
        assert len(shown.splitlines()) == 4


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_every_command_refuses_before_anything_is_made(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.yaml").write_text(tens(12))
    assert main([command, "bomb.yaml"]) == 2
    assert "= 1,000,000,000,000 variants" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.yaml"]


def test_an_experiment_that_is_made_in_python_is_bounded_too() -> None:
    options = [Grid(tuple(range(10)))] * 12
    with pytest.raises(ConfigError, match="1,000,000,000,000 variants"):
        Experiment("bomb", {"a": walker(extra=options)}).run()


def test_the_work_of_counting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few variants, each with links of its own: there is no product to compute."""
    pipeline: Stages = {"a0": walker(rate=Grid((1, 2))), "b0": walker(rate=Grid((1, 2)))}
    for n in range(1, 300):
        pipeline[f"a{n}"] = Grid((Link(f"a{n - 1}"), Link("b0")))
        pipeline[f"b{n}"] = walker(start=Grid((Link("a0"), Link("b0"))), rate=n)
    pipeline["all"] = walker(start=Link("a299"), extra=Link("b299"))
    assert counts(pipeline)[-3:] == [600, 4, 1800]
    monkeypatch.setattr(counting, "MAX_STEPS", 5000)
    with pytest.raises(ConfigError, match="too many combinations of links in options"):
        counts(pipeline)


def test_many_stages_that_are_reduced() -> None:
    pipeline: Stages = {"s0": walker(rate=Grid((1, 2)))}
    for n in range(1, 3000):
        pipeline[f"s{n}"] = walker(start=Link(f"s{n - 1}"), rate=Grid((1, 2)))
    with pytest.raises(ConfigError, match="stage 's16' has 2 × 2 .* = 131,072 variants"):
        counts(pipeline)
    pipeline = {"s0": walker(rate=Grid((1, 2)))}
    for n in range(1, 1000):
        pipeline[f"s{n}"] = walker(start=Grid((Link(f"s{n - 1}"), 1)))
    assert counts(pipeline)[-1] == 1001
    assert counts(pipeline, reduce=dict.fromkeys(pipeline, 1)) == [2] * 1000
