"""Small files that would make much work: refused, or read in a time that is linear in the file.

``flambe validate`` expanded all variants of all stages: 18 stages of two links each took 51 s and
0.9 GB, twelve grids of ten would have taken for ever. Their number is computed and bounded now.
"""

from __future__ import annotations

import itertools
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flambe.cli.main import main
from flambe.compile import Grid, Link, Sample, Schema
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_text
from flambe.errors import ConfigError
from flambe.experiment import Experiment, counting
from flambe.experiment.counting import count_variants
from flambe.experiment.planning.plan import plan_stages
from flambe.experiment.spec import ExperimentSpec, SearchSpec
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.options import domains
from tests.examples import examples
from tests.experiment.lab import environment
from tests.experiment.test_variants import Stages, expand, leaf, pipelines, walker

pytestmark = pytest.mark.integration

HEADER = "pieces: ./pieces\n---\n!Experiment\nname: bomb\npipeline:\n"
TEN = "!g [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"


def space() -> Schema:
    return Schema("ray.tune.search.sample:Float", "tune.uniform", [0.0, 1.0], {})


def described(pipeline: Stages, **keywords: Any) -> ExperimentSpec:
    return ExperimentSpec.from_keywords({"pipeline": pipeline, **keywords})


def counts(pipeline: Stages, **keywords: Any) -> list[int]:
    spec = described(pipeline, max_variants=100_000, **keywords)
    return [stage.running for stage in count_variants(spec).values()]


# -- the number of variants is that of the variants that are made ---------------------------------


@given(pipelines())
@settings(max_examples=examples(200), deadline=None)
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


def tried(pipeline: Stages, stage: str, search: SearchSpec, most: int | None) -> list[int]:
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
@settings(max_examples=examples(150), deadline=None)
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
        assert found == tried(pipeline, stage, SearchSpec.read(search), most)
        assert [row.count for row in plan_stages(described(pipeline, **keywords))] == found


@given(pipelines(), st.lists(st.integers(1, 4), min_size=5, max_size=5))
@settings(max_examples=examples(100), deadline=None)
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


def grids_of_tens(start: int) -> str:
    tens = (", ".join(str(10 * n + i) for i in range(10, 20)) for n in range(start, start + 40))
    return f"!g [{', '.join(f'!g [{ten}]' for ten in tens)}]"


def linked_twice(number: int) -> str:
    lines = ["  s0: !pieces.Walk {steps: 1}"]
    lines += [f"  s{n}: !g [!@ s{n - 1}, !@ s{n - 1}.x]" for n in range(1, number)]
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
        tens(1).replace("9]]", f"{', '.join(grids_of_tens(40 * n) for n in range(30))}]]"),
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


# -- the time and memory of reading are linear in the file ----------------------------------------


def stages(number: int, line: Callable[[int], str]) -> str:
    return HEADER + "".join(f"  s{n}: {line(n)}\n" for n in range(number))


def entries(number: int, line: Callable[[int], str]) -> str:
    return "".join(f"{line(n)}\n" for n in range(number))


def into_mapping(number: int) -> str:
    return (
        f"{HEADER}  a: !pieces.Walk\n    extra:\n"
        + entries(number, lambda n: f"      k{n}: 1")
        + "  b: !pieces.Walk\n    extra:\n"
        + entries(number, lambda n: f"    - !@ a[extra][k{n}]")
    )


def through_grid(number: int) -> str:
    """As many links through an option with as many elements, each to another key."""
    return (
        f"{HEADER}  a: !pieces.Walk\n    extra: !g\n"
        + entries(number, lambda n: f"    - {{x: {n}, k{n}: {n}}}")
        + "  b: !pieces.Walk\n    extra:\n"
        + entries(number, lambda n: f"    - !@ a[extra][x]\n    - !@ a[extra][k{n}]")
    )


def through_links(number: int) -> str:
    text = stages(number, lambda n: f"!pieces.Walk {{extra: !@ 's{n - 1}[extra]'}}")
    text = text.replace("!@ 's-1[extra]'", "[{a: 1}]")
    return f"{text}  last: !pieces.Walk\n    start: !@ s{number - 1}[extra][0][a]\n"


def through_own_links(number: int) -> str:
    """Each leads to the next, so that the first is as deep as there are links."""
    lines = entries(number, lambda n: f"    - !@ s[extra][{n + 1}][x]")
    return f"{HEADER}  s: !pieces.Walk\n    extra:\n{lines}    - {{x: 1}}\n"


def one_grid(number: int) -> str:
    values = ", ".join(map(str, range(number)))
    return f"{HEADER}  a: !pieces.Walk\n    rate: !g [{values}]\nmax_variants: 100000\n"


def many_options(number: int) -> str:
    return f"{HEADER}  a: !pieces.Walk\n    extra:\n" + entries(number, lambda n: f"    - !g [{n}]")


def fan_in(number: int) -> str:
    links = entries(number, lambda n: f"    - !@ s{n}")
    return stages(number, lambda n: "!pieces.Walk {steps: 1}") + (
        f"  all: !pieces.Walk\n    extra:\n{links}  reduced: !pieces.Walk\n    extra:\n{links}"
        "reduce: {all: 1}\n"
    )


def header_of(number: int) -> str:
    declared = entries(number, lambda n: f"flambe_missing_{n}: ./x")
    return f"{declared}---\n!Experiment\nname: x\npipeline:\n  a: !flambe_missing_0.A\n"


LONG: dict[str, Callable[[int], str]] = {
    "linked stages": chain,
    "links into a mapping": into_mapping,
    "links through an option": through_grid,
    "links through links": through_links,
    "links through links below": through_own_links,
    "one grid": one_grid,
    "many options": many_options,
    "one stage that links to all": fan_in,
    "reduce of all": lambda n: chain(n) + "reduce:\n" + entries(n, lambda i: f"  s{i}: 1"),
    "search of all": lambda n: (
        stages(n, lambda i: "!pieces.Walk {rate: !tune.uniform [0.0, 1.0]}")
        + "search:\n"
        + entries(n, lambda i: f"  s{i}: {{num_samples: 1}}")
    ),
    "many resources": lambda n: chain(1) + "resources:\n" + entries(n, lambda i: f"  r{i}: a"),
    "links to nothing": lambda n: stages(n, lambda i: f"!pieces.Walk {{start: !@ t{i}}}"),
    "unknown tags": lambda n: stages(n, lambda i: f"!pieces.Wlak{i} {{start: 1}}"),
    "unknown keywords": lambda n: stages(n, lambda i: f"!pieces.Walk {{strat{i}: 1}}"),
    "wrong types": lambda n: stages(n, lambda i: "!pieces.Walk {steps: x}"),
    "unknown stages": lambda n: chain(n) + "search:\n" + entries(n, lambda i: f"  t{i}: {{}}"),
    "unknown stages to resume": lambda n: chain(n) + "resume:\n" + entries(n, lambda i: f"- t{i}"),
    "unknown extensions": header_of,
    "aliases": lambda n: f"{HEADER}  a: !pieces.Walk\n    extra: [&a [1], {'*a, ' * n}]\n",
    "merged mappings": lambda n: (
        f"{HEADER}  a: !pieces.Walk\n    extra: [&a {{x: 1}}, {{<<: [{'*a, ' * n}]}}]\n"
    ),
}


def calls(text: str, path: Path) -> int:
    """Return how many functions are called, in Python and in C, to validate a file."""
    path.write_text(text)
    number = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        main(["validate", str(path)])
    finally:
        sys.setprofile(None)
    return number


@pytest.mark.parametrize("name", LONG)
def test_twice_the_file_is_twice_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.yaml"
    calls(LONG[name](2), path)  # imports
    once, twice = (calls(LONG[name](number), path) for number in (300, 600))
    assert twice < 2.5 * once
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert "unexpected" not in shown.err


def limited(text: str, folder: Path, seconds: int = 100, memory: int = 3 << 30) -> tuple[int, str]:
    """Validate a file in a process that is killed if it needs more; return its code and errors."""
    path = folder / "long.yaml"
    path.write_text(text)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run(
        [sys.executable, "-m", "flambe", "validate", str(path)],
        preexec_fn=limit,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


FULL: dict[str, tuple[str, int, str]] = {
    "20,000 linked stages": (chain(20_000), 0, ""),
    "20,000 links to nothing": (LONG["links to nothing"](20_000), 2, "more than 100 mistakes"),
    "10,000 links through 10,000 elements": (through_grid(10_000), 0, ""),
    "30,000 links through links": (through_own_links(30_000), 2, "s[extra][2] has no keyword"),
    "a million values": (f"[{'1,' * 1_000_000}]", 2, ":1:400000: more than 100,000 values"),
    "a million lists": (f"[{'[],' * 650_000}]", 2, "more than 100,000 values"),
    "a million nested lists": ("[" * 1_000_000, 2, "nested deeper than 60"),
    "a long name": (f"{HEADER}  {'s' * 1000}: !pieces.Walk {{}}\nresume: {'s' * 999_000}", 2, "…"),
    "a long tag": (
        f"{HEADER}  s: !{'s' * 1_000_000} 1\n",
        2,
        "a tag of more than 1,000 characters",
    ),
    "a long link": (
        f"{chain(1)}  t: !pieces.Walk\n    start: !@ s0{'[a]' * 300_000}",
        2,
        "not a link",
    ),
    "a long number": (f"{HEADER}  s: !pieces.Walk {{steps: 0x{'f' * 1_000_000}}}", 2, "quote it"),
    "long names that are alike": (
        "".join([HEADER, *(f"  {'ab' * 450}{n}: !pieces.Walk {{}}\n" for n in range(999))])
        + "resume:\n"
        + "".join(f"- {'ba' * 450}{n}\n" for n in range(999)),
        2,
        "more than 100 mistakes",
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_what_fills_a_file_is_read_in_bounded_time_and_memory(name: str, tmp_path: Path) -> None:
    text, code, message = FULL[name]
    returned, shown = limited(text, tmp_path)
    assert (returned, "Traceback" in shown) == (code, False), shown[-2000:]
    assert message in shown
    assert len(shown) < 200_000


def test_a_number_that_python_would_not_write_is_refused() -> None:
    """Hexadecimal is read whatever its length; to write it in a message or a name failed."""
    for digits, problems in ((3000, 0), (4000, 1)):
        document = read_text(f"a: 0x{'f' * digits}\n")
        assert len(document.problems) == problems


def test_a_mistake_is_listed_once_and_the_rest_is_left_out() -> None:
    with pytest.raises(ConfigError) as raised:
        check(read_text(LONG["links to nothing"](101)))
    messages = [problem.message for problem in raised.value.problems]
    assert messages[0] == "more than 100 mistakes; the rest is left out"
    assert len(messages) == 101
    document = read_text(LONG["links to nothing"](100))
    check(document)
    assert len(document.problems) == 100
