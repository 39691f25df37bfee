"""Broken files give clean errors: every golden case, mutated.

``make fuzz`` runs 100,000 inputs, the tests 300. An input is made from its number and a seed alone:

    FLAMBE_FUZZ=100000     how many
    FLAMBE_FUZZ_SEED=1     where they start from
    FLAMBE_FUZZ_ONLY=4711  only this one
"""

from __future__ import annotations

import io
import os
import random
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Grid, Schema, yaml
from flambe.compile.checks.calls import check
from flambe.errors import ConfigError
from flambe.experiment.planning.plan import plan_stages
from flambe.experiment.spec import ExperimentSpec

pytestmark = pytest.mark.integration

CASES = Path(__file__).parent.parent / "cases"
COUNT = int(os.environ.get("FLAMBE_FUZZ", "300"))
SEED = os.environ.get("FLAMBE_FUZZ_SEED", "0")
ONLY = os.environ.get("FLAMBE_FUZZ_ONLY")
SHARD = 1000
SECONDS = 10.0  # of the processor's time, for one input
MEMORY = 1 << 30  # bytes that one input may need

TOKENS = [
    *("!@ ", "!g ", "!s ", "!cluster ", "!g [1, 2]", "!s [1, 9, 2]", "!s [0.0, 1.0, 2, 3]", "!"),
    *("!heron_ext.", "!heron_ext.HeronNest", "!heron_ext.HeronWorker", "!heron_ext.HeronFlock"),
    *("!heron_ext.HeronScalar", "!heron_ext.HeronList", "!heron_ext.HeronTable", "!HeronNest"),
    *("!heron_ext.HeronSettings", "!grey_heron", "!torch.Linear", "!torch.", "!Trainer", "!!"),
    *("!Experiment", "!tune.loguniform", "!ray.ASHAScheduler", "!!str ", "!!int ", "!!float "),
    *("!!bool ", "!!null ", "!!map ", "!!seq ", "!!set ", "!!binary ", "!!timestamp ", "!!merge "),
    *("!<x>", "!e!x", "!!python/name:os.system ", "&a ", "*a", "&b ", "*b", "<<: *a", "<<: ", "<<"),
    *("---\n", "...\n", "--- ", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "%TAG ! tag:x,2:\n---\n"),
    *(
        "- ",
        "? ",
        ": ",
        ":",
        ", ",
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
        "|\n",
        ">\n",
        "|2-\n",
        "# ",
        "#",
    ),
    *("\n", "\n\n", "  ", "    ", "\t", " ", "\r", "\r\n", "'", '"', "''", '"\\', '"\\x41"', "\\"),
    *("null", "~", "true", "false", "yes", "0", "-1", "1e999", "-.inf", ".nan", "0x", "0o8", "1_0"),
    *("9" * 30, "9" * 400, "9" * 5000, "1:30", "2020-01-01", "1e-400", "-0.0", "=", "@", "`", "%"),
    *("pipeline", "resources", "reduce", "search", "schedulers", "devices", "resume", "name"),
    *("pipeline:\n", "resources: {a: b}\n", "reduce: {train: 1}\n", "resume: true\n", "seed: "),
    *("train", "nest", "train[nest]", "nest.eggs", "nest[eggs]", "[0]", "['a']", ".x", "[a]["),
    *("\x00", "\x07", "\x85", "\u2028", "\ufeff", "\ud7ff", "é", "🐦", "٣", "²", "\x7f", "\xa0"),
    *("heron_ext: ./x\n---\n", "heron_missing: x\n---\n", "heron_raises: x\n---\n", "a: 1\n"),
]
WORD = re.compile(r"[!&*]?[\w@.]+|[\[\]{}:,?|>#'\"-]|\s+")


@cache
def originals() -> list[str]:
    return [
        re.sub(r"^(# (error|hint): .*\n)+", "", path.read_text(encoding="utf-8"))
        for path in sorted(CASES.glob("*.yaml"))
        if path.stat().st_size < 20_000
    ]


# -- mutations ----------------------------------------------------------------------------------


def flip(text: str, random: random.Random) -> str:
    data = bytearray(text.encode("utf-8", "surrogateescape"))
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return data.decode("utf-8", "surrogateescape")


def cut(text: str, random: random.Random) -> str:
    start = random.randrange(len(text) + 1)
    return text[:start] + text[start + random.choice((1, 1, 2, 5, 20)) :]


def truncate(text: str, random: random.Random) -> str:
    return text[: random.randrange(len(text) + 1)]


def insert(text: str, random: random.Random) -> str:
    start = random.randrange(len(text) + 1)
    return text[:start] + random.choice(TOKENS) + text[start:]


def swap_tokens(text: str, random: random.Random) -> str:
    found = list(WORD.finditer(text))
    if len(found) < 2:
        return text
    one, other = sorted(random.sample(found, 2), key=lambda match: match.start())
    between = text[one.end() : other.start()]
    return text[: one.start()] + other[0] + between + one[0] + text[other.end() :]


def replace_token(text: str, random: random.Random) -> str:
    found = list(WORD.finditer(text))
    if not found:
        return text
    one = random.choice(found)
    return text[: one.start()] + random.choice(TOKENS) + text[one.end() :]


def lines_of(text: str) -> list[str]:
    return text.splitlines(keepends=True) or [""]


def duplicate_line(text: str, random: random.Random) -> str:
    lines = lines_of(text)
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return "".join(lines)


def swap_lines(text: str, random: random.Random) -> str:
    lines = lines_of(text)
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "".join(lines)


def delete_line(text: str, random: random.Random) -> str:
    lines = lines_of(text)
    del lines[random.randrange(len(lines))]
    return "".join(lines)


def indent(text: str, random: random.Random) -> str:
    lines = lines_of(text)
    which = random.randrange(len(lines))
    lines[which] = random.choice((" ", "  ", "\t", "- ")) + lines[which]
    return "".join(lines)


def repeat(text: str, random: random.Random) -> str:
    start = random.randrange(len(text) + 1)
    times = random.choice((3, 30, 70, 300, 1500))
    return text[:start] + random.choice(TOKENS)[:40] * times + text[start:]


def nest(text: str, random: random.Random) -> str:
    start = random.randrange(len(text) + 1)
    opening, closing = random.choice(
        (("[", "]"), ("{a: ", "}"), ("!g [", "]"), ("- ", ""), ("? ", ""))
    )
    depth = random.choice((5, 30, 70, 400))
    return text[:start] + opening * depth + "1" + closing * depth + text[start:]


def splice(text: str, random: random.Random) -> str:
    other = random.choice(originals())
    return text[: random.randrange(len(text) + 1)] + other[random.randrange(len(other) + 1) :]


def multiply(text: str, random: random.Random) -> str:
    """Make small bombs: options by options, links by links, links in options in stages above."""
    number = random.choice((3, 3, 3, 12, 12, 12, 40, 40, 400))
    grid = f"!g [{', '.join(map(str, range(random.choice((2, 10, 300)))))}]"
    bombs = [
        f"[{', '.join([grid] * number)}]",
        f"!g [{', '.join([grid] * number)}]",
        f"!g [{', '.join(['!@ nest', '!@ train'] * number)}]",
        f"[{', '.join(['!g [!@ nest, !@ train]'] * number)}]",
        f"!s [0, 1000000000, {random.choice((1000, 100_000, 10**9))}]",
        "!tune.uniform [0.0, 1.0]",
        f"0x{'f' * 100 * number}",
    ]
    pipeline = re.search(r"^pipeline:.*\n( +)", text, re.MULTILINE)
    if pipeline is None or random.random() < 0.4:
        found = list(re.finditer(r"(?<=: ).+$", text, re.MULTILINE))
        if not found:
            return text
        one = random.choice(found)
        return text[: one.start()] + random.choice(bombs) + text[one.end() :]
    links = random.choice(("!@ s{}", "!g [!@ s{0}, !@ s{0}]", "[!@ s{}, !@ s0]", "!g [!@ s{}, 1]"))
    stages = [f"s0: {random.choice(bombs)}"]
    stages += [f"s{index + 1}: {links.format(index)}" for index in range(number)]
    lines = "".join(f"{pipeline[1]}{stage}\n" for stage in stages)
    start = pipeline.start(1)
    return text[:start] + lines + text[start:]


MUTATIONS: list[Callable[[str, random.Random], str]] = [
    *(flip, flip, cut, cut, insert, insert, insert, replace_token, replace_token, replace_token),
    *(swap_tokens, swap_tokens, duplicate_line, swap_lines, delete_line, indent, truncate, splice),
    *(repeat, nest, multiply),
]


def mutated(number: int) -> bytes:
    chance = random.Random(f"{SEED}:{number}")
    text = originals()[number % len(originals())]
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        text = chance.choice(MUTATIONS)(text, chance)
    return text.encode("utf-8", "surrogateescape")


# -- what must hold -----------------------------------------------------------------------------


class TooSlow(BaseException):
    pass


def address_space() -> int:
    """Return how much memory this process has, in bytes."""
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def read(source: bytes) -> Any:
    document = yaml.read(io.BytesIO(source))
    root = document.root
    check(document, alone=not (isinstance(root, Schema) and root.tag == "Experiment"))
    document.raise_problems()
    if isinstance(root, Schema) and root.tag == "Experiment":
        plan_stages(ExperimentSpec.from_keywords(root.kwargs))
    return root


def typed(value: Any) -> Any:
    """Return the value with the kinds of all scalars, so that 1, 1.0 and True differ."""
    if isinstance(value, Schema):
        return value.target, value.tag, typed(value.args), typed(value.kwargs), typed(value.content)
    if isinstance(value, dict):
        return {"table": [(typed(key), typed(child)) for key, child in value.items()]}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, Grid):
        return Grid, [typed(item) for item in value.elements]
    return type(value).__name__, repr(value)


def judge(source: bytes) -> bool:
    """Return whether an input is valid; raise what should not be raised."""
    try:
        root = read(source)
    except ConfigError as error:
        told = error
    else:
        return same_again(root)
    assert told.problems
    assert str(told)
    for problem in told.problems:
        assert problem.message
        assert problem.place is None or (problem.place.line > 0 and problem.place.column > 0)
    return False


def same_again(root: Any) -> bool:
    text = yaml.dump(root)
    if root is not None:
        again = read(text.encode())
        assert typed(again) == typed(root), text
        assert yaml.dump(again) == text
    return True


def shards() -> list[range]:
    if ONLY:
        return [range(int(ONLY), int(ONLY) + 1)]
    return [range(start, min(start + SHARD, COUNT)) for start in range(0, COUNT, SHARD)]


@pytest.mark.parametrize("numbers", shards(), ids=lambda numbers: str(numbers.start))
def test_mutated_cases_give_a_value_or_a_clean_error(numbers: range) -> None:
    for text in originals():  # imports what the cases name
        judge(text.encode())
    failed = []
    for number in numbers:
        source = mutated(number)
        try:
            with limited(SECONDS):
                judge(source)
        except (Exception, TooSlow, SystemExit) as error:
            told = f"{type(error).__name__}: {str(error)[:300]}"
            print(f"FLAMBE_FUZZ_SEED={SEED} FLAMBE_FUZZ_ONLY={number}\n{told}\n{source[:2000]!r}\n")
            if ONLY:
                raise
            failed.append((number, told))
    assert not failed, f"{len(failed)} of {len(numbers)}, the first: {failed[0]}"


def test_inputs_are_reproducible_and_of_both_kinds() -> None:
    assert [mutated(number) for number in range(20)] == [mutated(number) for number in range(20)]
    kinds = {judge(mutated(number)) for number in range(60)}
    assert kinds == {True, False}
