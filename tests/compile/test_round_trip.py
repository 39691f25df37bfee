"""Any tree of values is read back as it was written; objects made in Python are written too."""

from __future__ import annotations

import enum
import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flambe.compile import (
    Component,
    Grid,
    Link,
    MappedRegistrable,
    Registrable,
    Sample,
    Schema,
    alias,
    registrable_factory,
    yaml,
)
from flambe.compile.reader.document import read_text
from flambe.compile.values import ClusterResource
from flambe.errors import StateError
from tests.examples import examples


def back(value: object) -> object:
    """Return what is read of a value that was written on one line."""
    line = yaml.dump_line(value)
    assert "\n" not in line
    document = read_text(f"!TripOpen\nvalue: {line}\n")
    document.raise_problems()
    return document.root.kwargs["value"]


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 1, 1e-5, "yes", "1", "~", "", "a: b", "#", "- a", "?x", "!g [1]", "[1"),
        *("a\nb", "x\n", "\u2028", "ü", {}, [], [1, {"a": None}], {"a": {"b": [1, {"c": 2}]}}),
        Grid((0.1, Link.parse("train[model].x"), None)),
        Sample(0.0, 1.0, 3),
        Schema.of(torch.nn.Linear, 3, 4),
        Grid((Schema.of(torch.nn.Linear, out_features=Grid((1, 2))), Schema.of(torch.nn.ReLU))),
    ],
)
def test_a_value_is_read_back_from_one_line(value: object) -> None:
    assert back(value) == value


class TripOpen(Component):
    def __init__(self, **values: Any) -> None:
        self.values = values


class TripMany(Component):
    def __init__(self, *values: Any) -> None:
        self.values = values

    @registrable_factory
    @classmethod
    def twice(cls, value: Any = None, **more: Any) -> TripMany:
        return cls(value, value)


class TripRead(Registrable):
    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def from_yaml(cls, value: Any) -> TripRead:
        return cls(value)

    def to_yaml(self) -> Any:
        return self.value


class TripMapped(MappedRegistrable):
    def __init__(self, host: str, port: int = 22) -> None:
        self.host = host
        self.port = port


@alias("trip_other")
class TripAliased(Component):
    def __init__(self, first: Any, *rest: Any, last: Any = None) -> None:
        self.parts = first, rest, last


class TripMixed(Component):
    def __init__(self, one: Any, two: Any = 2, *, three: Any = 3) -> None:
        self.parts = one, two, three


@dataclass
class TripData(Component):
    one: Any
    two: int = 2


class TripChild(TripMixed):
    def __init__(self, size: int) -> None:
        super().__init__(size, two=size)


# -- any tree -----------------------------------------------------------------------------------

TRICKY = [
    *("no", "yes", "on", "true", "null", "~", "", " ", " x", "x ", "1e-3", "1", "-1", "1.5", "0o7"),
    *("0x1F", "1_000", ".inf", ".nan", "2020-01-01", "2020-01-01 10:00:00", "12:30:45", "a: b"),
    *("a #b", "#", "-", "- a", "?", ": ", ":", "*a", "&a", "!g", "!g [1]", "@x", "`x`", "%x", "|"),
    *(
        ">",
        "'",
        '"',
        "''",
        "it's",
        "a\nb",
        "a\n",
        "\n",
        "\n\na",
        " a\n  b\n",
        "a\tb",
        "\t",
        "[",
        "{",
    ),
    *("}", "]", ",", "a,b", "<<", "=", "---", "...", "--- a", "a\n---\nb", "é", "鷺", "🐦", "\x85"),
    *(
        "\u2028",
        "\ufeff",
        "\x00",
        "\x07",
        "\x7f",
        "\ud7ff",
        "\ue000",
        "a\rb",
        "\r\n",
        "\\",
        "x" * 300,
    ),
    *("a " * 100, "0b1", "+1", "1.", ".5", "1e5", "1E5", "0.1e1", "TRUE", "Null", "\xa0", "a\\nb"),
]
texts = st.one_of(st.sampled_from(TRICKY), st.text(max_size=12))
scalars = st.one_of(
    texts,
    st.booleans(),
    st.none(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,6}", fullmatch=True)
links = st.builds(
    Link,
    names,
    st.lists(
        st.one_of(names, st.integers(0, 99), st.sampled_from(["a b", "1", "x,y"])), max_size=3
    ).map(tuple),
    st.lists(st.from_regex(r"[a-z_]{1,5}", fullmatch=True), max_size=2).map(tuple),
)
samples = st.one_of(
    st.builds(lambda low, n: Sample(low, low + n, n), st.integers(-99, 99), st.integers(1, 9)),
    st.builds(lambda n: Sample(-1.5, 2.0, n, None), st.integers(1, 9)),
    st.builds(lambda d: Sample(0, 0.5, 1, d), st.integers(0, 15)),
)
keys = st.one_of(texts, st.integers(-99, 99), st.floats(allow_nan=False))
keywords = texts
locations = texts.filter(bool).map(ClusterResource)


def schema(target: Any, args: Any = (), kwargs: Any = None, content: Any = None) -> Schema:
    made = Schema.of(target, *args, **(kwargs or {}))
    made.content = content
    return made


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    # 1 and 1.0 are one key.
    tables = st.dictionaries(keys, inner, max_size=4)
    keyed = st.dictionaries(keywords, inner, max_size=3)
    return st.one_of(
        lists,
        tables,
        st.lists(inner, min_size=1, max_size=4).map(lambda items: Grid(tuple(items))),
        keyed.map(lambda kwargs: schema(TripOpen, (), kwargs)),
        lists.map(lambda args: schema(TripMany, args)),
        lists.map(lambda args: schema(torch.nn.Sequential, args)),
        lists.map(lambda args: schema(TripAliased, ["first", *args])),
        keyed.map(lambda kwargs: schema(TripMany.twice, (), kwargs)),
        st.one_of(lists, tables, scalars).map(lambda value: schema(TripRead, content=value)),
        texts.map(lambda host: schema(TripMapped, (), {"host": host})),
    )


trees = st.recursive(st.one_of(scalars, links, samples, locations), containers, max_leaves=12)


def read(text: str) -> Any:
    document = read_text(text)
    document.raise_problems()
    return document.root


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


@settings(max_examples=examples(100), deadline=None)
@given(trees.filter(lambda tree: tree is not None))
@example([{"a": schema(TripOpen, (), {"a": 1})}, Grid((schema(TripOpen, (), {"b": 2}),))])
@example(schema(TripMany, [schema(TripMany), schema(TripMany, [""]), [[]], {}, None]))
@example(schema(TripMany, [None]))
@example(schema(TripRead, content=["a"]))
@example({"<<": {"a": 1}, "=": 2, "1": 3, 1: 4, 2.5: 5, "~": 6})
@example("a...")
@example([-0.0, 1e16, 1e-7, 1e300, 123456789012345678.0])
def test_what_is_written_is_read_back(tree: Any) -> None:
    text = yaml.dump(tree)
    again = read(text)
    assert again == tree
    assert typed(again) == typed(tree)
    assert yaml.dump(again) == text


@settings(max_examples=examples(60), deadline=None)
@given(texts)
def test_text_is_read_back_wherever_it_stands(text: str) -> None:
    tree = [
        text,
        {text: text},
        Grid((text, [text])),
        schema(TripMany, [text]),
        schema(TripMany, [text, text]),
        schema(TripRead, content=text),
        schema(TripRead, content=[text]),
        schema(TripOpen, (), {text: text}),
    ]
    assert read(yaml.dump(tree)) == tree
    if text:
        assert read(yaml.dump([ClusterResource(text)])) == [ClusterResource(text)]
    assert read(yaml.dump(text)) == text if text else True


@given(trees.filter(lambda tree: tree is not None))
@settings(max_examples=examples(20), deadline=None)
def test_what_is_written_into_a_stream_is_the_same(tree: Any) -> None:
    stream = io.StringIO()
    assert yaml.dump(tree, stream) == stream.getvalue()


# -- objects that were made in Python -----------------------------------------------------------


def made_again(value: Any) -> Any:
    loaded = yaml.load(io.StringIO(yaml.dump(value)))
    return loaded() if isinstance(loaded, Schema) else loaded


def test_keywords_and_positions() -> None:
    assert yaml.dump(TripMixed(1, three=4)) == "!TripMixed\none: 1\nthree: 4\n"
    assert made_again(TripMixed(1, three=4)).parts == (1, 2, 4)
    assert made_again(TripMixed(1, 5)).parts == (1, 5, 3)
    assert yaml.dump(TripMany()) == "!TripMany\n"
    assert made_again(TripMany(1, "a", None)).values == (1, "a", None)
    assert made_again(TripOpen(a=1, b=[2])).values == {"a": 1, "b": [2]}


def test_positions_behind_keywords() -> None:
    assert yaml.dump(TripAliased(1, 2, 3)) == "!trip_other [1, 2, 3]\n"
    assert made_again(TripAliased(1, 2, 3)).parts == (1, (2, 3), None)
    assert made_again(TripAliased(1, last=3)).parts == (1, (), 3)
    with pytest.raises(StateError, match="both positional values and keywords"):
        yaml.dump(TripAliased(1, 2, last=3))


def test_blueprints_with_positions_and_keywords() -> None:
    mixed = Schema.of(TripMixed, 1, three=2)
    assert yaml.dump(mixed) == "!TripMixed\none: 1\nthree: 2\n"
    assert made_again(mixed).parts == (1, 2, 2)
    with pytest.raises(StateError, match="both positional values and keywords"):
        yaml.dump(Schema.of(TripAliased, 1, 2, last=3))


def test_what_the_outermost_constructor_was_given_counts() -> None:
    assert yaml.dump(TripChild(7)) == "!TripChild\nsize: 7\n"
    assert made_again(TripChild(7)).parts == (7, 7, 3)


def test_dataclasses() -> None:
    assert yaml.dump(TripData(1)) == "!TripData\none: 1\ntwo: 2\n"
    assert made_again(TripData([1], 3)) == TripData([1], 3)


def test_objects_inside_of_everything() -> None:
    inner = TripMixed(1)
    for value in (
        *(TripMany(inner), TripMany([inner]), TripMany({"a": inner}), TripOpen(a=inner)),
        *(Schema.of(TripMany, inner), Schema.of(TripMany, [inner]), TripRead([inner])),
    ):
        text = yaml.dump(value)
        assert "!TripMixed" in text
        assert yaml.dump(made_again(value)) == text
    assert yaml.dump([Grid((inner, 1))]) == "- !g\n  - !TripMixed\n    one: 1\n  - 1\n"
    assert yaml.dump({"a": (inner,)}) == "a:\n- !TripMixed\n  one: 1\n"


def test_a_class_that_writes_itself() -> None:
    for value in ("1.5", 1.5, None, [], ["a"], {}, {"a": [1]}, "", [1, 2]):
        assert made_again(TripRead(value)).value == value
    assert yaml.dump(TripMapped("x")) == "!TripMapped\nhost: x\n"
    assert made_again(TripMapped("x", port=3)).port == 3
    with pytest.raises(StateError, match=r"its to_yaml\(\) returns a tagged value"):
        yaml.dump(TripRead(TripMixed(1)))


def test_values_that_have_a_plain_form() -> None:
    values = TripMany((1, 2), Path("a/b"), np.float64(0.5), np.int32(3), OrderedDict(a=1))
    assert made_again(values).values == ([1, 2], "a/b", 0.5, 3, {"a": 1})


class TripColour(enum.IntEnum):
    GREY = 1


@pytest.mark.parametrize(
    "value",
    [object(), {1}, b"x", 1j, np.zeros(2), TripColour.GREY, TripMany, torch.nn.ReLU(), len],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_named(value: Any) -> None:
    with pytest.raises(StateError, match=r"cannot write !TripOpen a\[x\]\[1\] as YAML: a "):
        yaml.dump(TripOpen(a={"x": [1, value]}))
    with pytest.raises(StateError, match=r"cannot write .* as YAML: "):
        yaml.dump(Schema.of(TripMany, value))
    with pytest.raises(StateError, match="cannot write it as YAML: "):
        yaml.dump(value)


@pytest.mark.parametrize("key", [None, (1, 2), TripColour.GREY])
def test_keys_that_have_no_form_are_named(key: Any) -> None:
    with pytest.raises(StateError, match="one of its keys is a"):
        yaml.dump(TripOpen(a={key: 1}))


def test_classes_that_no_import_finds() -> None:
    class TripLocal(Component):
        def __init__(self, size: int = 1) -> None:
            self.size = size

    assert Schema.of(TripLocal, 3)().size == 3
    assert TripLocal.schema(size=4)().size == 4
    assert made_again(TripLocal(5)).size == 5


def test_what_was_built_is_written_as_it_was_read() -> None:
    text = "!TripOpen\na: !TripMany [1, 2]\nb:\n- !trip_other [x]\n- {c: 1}\n"
    made = yaml.load(text)()
    assert yaml.load(yaml.dump(made)) == yaml.load(text)
    assert yaml.dump(made.values["a"]) == "!TripMany [1, 2]\n"
