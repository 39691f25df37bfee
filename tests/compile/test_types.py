"""Which values fit which annotation."""

from __future__ import annotations

import collections
import collections.abc
import enum
import os
import typing
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict, Union

import pytest
import torch

from flambe.compile import Component, Grid, Link, Sample, Schema
from flambe.compile import annotation_checks as compile_types
from flambe.compile.annotation_checks import fits, hints, kind_of, misfits, name_of, wants_schema
from flambe.compile.values import BROKEN, ClusterResource


class FitBase(Component):
    pass


class FitChild(FitBase):
    pass


class FitOther(Component):
    def __init__(self, call: Callable[[], int] | None = None) -> None:
        self.call = call


class FitProtocol(Protocol):
    def wade(self) -> None: ...


class FitTyped(TypedDict):
    a: int


class FitColour(enum.Enum):
    GREY = "grey"


FitNew = NewType("FitNew", int)
FitVar = typing.TypeVar("FitVar")

BASE, CHILD, OTHER = (Schema.of(cls) for cls in (FitBase, FitChild, FitOther))
UNKNOWN = Schema("", "Unknown")
SPACE = Schema("ray.tune.search.sample:uniform", "tune.uniform", [0.0, 1.0])
LINEAR = Schema.of(torch.nn.Linear, 1, 1)

# annotation: what fits, what does not
TABLE: list[tuple[Any, list[Any], list[Any]]] = [
    (Any, [1, None, "x", [], {}, BASE, ClusterResource("x")], []),
    (object, [1, None, "x", BASE], []),
    (int, [0, -1, 10**30], [1.0, True, "1", None, [1], {}, BASE]),
    (float, [0, 1.5, float("nan")], [True, "1.5", None, [1.0], BASE]),
    (bool, [True, False], [0, 1, "true", None, BASE]),
    (str, ["", "x", ClusterResource("/x")], [1, 1.5, True, None, ["x"], BASE]),
    (None, [None], [0, "", False]),
    (type(None), [None], [0, BASE]),
    (bytes, [], ["x", 1]),
    (Path, ["some/where"], [1, None, ["x"]]),
    (os.PathLike, ["some/where"], [1, None]),
    (Optional[int], [None, 1], ["x", True, 1.5, BASE]),
    (int | None, [None, 1], ["x", True, 1.5, BASE]),
    (Union[int, str], [1, "x"], [None, 1.5, [], BASE]),
    (int | list[int] | None, [1, [1], [], None], ["x", ["x"], [None], {}]),
    (Literal["a", 1, None], ["a", 1, None], ["b", 2, True, [], {}]),
    (Literal[True], [True], [1, "true"]),
    (Literal["a", "b"] | None, ["a", None], ["c", 1]),
    (Annotated[int, "size"], [1], ["x"]),
    (list, [[], [1, "x"]], [1, "x", {}, None, BASE]),
    (typing.List, [[], [1]], [1, {}]),  # noqa: UP006
    (list[int], [[], [1]], [["x"], [None], "x", 1, {}]),
    (list[list[int]], [[], [[1], []]], [[1], [["x"]]]),
    (Sequence[str], [[], ["x"]], ["x", [1], {}]),
    (Iterable[str], [["x"]], ["x", {}]),
    (set[int], [[1]], [["x"], 1]),
    (collections.abc.Sequence, [[], [1]], ["x", {}]),
    (tuple, [[], [1, "x"]], [1, {}]),
    (typing.Tuple, [[], [1, "x"]], [1, {}]),  # noqa: UP006
    (tuple[int, str], [[1, "x"]], [[], [1], ["x", 1], [1, "x", 2], 1]),
    (tuple[int, ...], [[], [1, 2, 3]], [["x"], 1]),
    (tuple[float, float], [[0.9, 1]], [[0.9]]),
    (dict, [{}, {"a": 1}], [[], "x", None, BASE]),
    (dict[str, int], [{}, {"a": 1}], [{"a": "x"}, {1: 1}, [1], "x"]),
    (Mapping[str, Any], [{}, {"a": None}], [{1: 1}, []]),
    (MutableMapping[str, list[int]], [{"a": [1]}], [{"a": 1}]),
    (Mapping[str, Schema], [{"a": BASE}], [{"a": 1}, {"a": None}]),
    (Mapping, [{}], [[]]),
    (Callable, [BASE, LINEAR], [1, "x", None, []]),
    (Callable[[int], int], [BASE], [1, "x", []]),
    (Callable[..., Any] | None, [None], [1]),
    (type[int], [], [1, "x"]),
    (Schema, [BASE, OTHER, LINEAR], [1, "x", None, {}]),
    (Schema | None, [BASE, None], [1]),
    (FitBase, [BASE, CHILD, UNKNOWN], [OTHER, LINEAR, 1, "x", None, [], {}]),
    (FitChild, [CHILD], [BASE, OTHER]),
    (FitBase | None, [BASE, None], [OTHER, 1]),
    (Component, [BASE, CHILD, OTHER], [LINEAR, 1]),
    (torch.nn.Module, [LINEAR], [BASE, 1]),
    (torch.Tensor, [], [1, [1.0]]),
    (list[FitBase], [[BASE, CHILD]], [[OTHER], [1], BASE]),
    (Mapping[str, FitBase], [{"a": CHILD}], [{"a": OTHER}]),
    (FitProtocol, [BASE, 1, "x"], []),
    (FitTyped, [{"a": 1}, {}], [1, []]),
    (FitColour, [], ["grey", 1]),
    (FitNew, [1, "x"], []),
    (FitVar, [1, "x"], []),
    (typing.Hashable, [1, "x", BASE], []),
    (typing.SupportsFloat, [1, 1.5], []),
    ("int", [1, "x"], []),
    (typing.ForwardRef("NoSuchName"), [1, "x", BASE], []),
    (list["NoSuchName"], [[1]], [1]),  # type: ignore[name-defined]  # noqa: F821
    (Optional["NoSuchName"], [1, None], []),  # noqa: F821
    (collections.OrderedDict, [], [1]),
]


@pytest.mark.parametrize(("annotation", "right", "wrong"), TABLE, ids=lambda v: str(v)[:40])
def test_what_fits(annotation: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not fits(value, annotation)] == []
    assert [value for value in wrong if fits(value, annotation)] == []


@pytest.mark.parametrize(("annotation", "right", "wrong"), TABLE, ids=lambda v: str(v)[:40])
def test_links_options_and_mistakes_fit_as_what_they_stand_for(
    annotation: Any, right: list[Any], wrong: list[Any]
) -> None:
    assert fits(Link("x"), annotation)
    assert fits(BROKEN, annotation)
    assert fits(Grid(tuple(right)), annotation)
    for value in wrong:
        assert not fits(Grid((*right, value)), annotation)


@pytest.mark.parametrize(("annotation", "right", "wrong"), TABLE, ids=lambda v: str(v)[:40])
def test_what_does_not_fit_can_be_told(annotation: Any, right: list[Any], wrong: list[Any]) -> None:
    assert name_of(annotation)
    for value in wrong:
        path, inner, wanted = next(misfits(value, annotation))
        assert not fits(inner, wanted)
        found = value
        for key in path:
            found = found.elements[int(key)] if isinstance(found, Grid) else found[key]
        assert found is inner
        assert kind_of(inner)


def test_samples() -> None:
    assert fits(Sample(1, 3, 2), int)
    assert fits(Sample(1, 3, 2), float)
    assert fits(Sample(0.0, 1.0, 2), float)
    assert fits(Sample(0.0, 1.0, 2), int | float)
    assert not fits(Sample(0.0, 1.0, 2), int)
    assert not fits(Sample(1, 3, 2), str)


def space(kind: str, *args: Any) -> Schema:
    return Schema(f"ray.tune.search.sample:{kind}", f"tune.{kind}", list(args))


def test_search_spaces_fit_where_what_they_draw_does() -> None:
    real: list[Any] = [float, float | None, Any, int | float]
    assert all(fits(SPACE, annotation) for annotation in real)
    others: list[Any] = [int, str, list[int], FitBase, int | None]
    assert not any(fits(SPACE, annotation) for annotation in others)
    whole = space("qrandint", 16, 32, 16)
    either: list[Any] = [int, float, int | None, Literal[16, 32], Literal[16, 32] | None]
    assert all(fits(whole, annotation) for annotation in either)
    assert not fits(whole, str)
    assert fits(space("choice", [1, None]), int | None)
    assert not fits(space("choice", [1, "a"]), int | None)
    wrong = list(misfits(space("choice", [1, "a", [2]]), int | None))
    assert wrong == [((0, 1), "a", int | None), ((0, 2), [2], int | None)]
    assert fits(space("sample_from", "function"), int)  # nobody knows what it draws


def test_factories_fit_anything() -> None:
    assert fits(Schema.of(FitBase.schema), FitOther)


def test_the_innermost_misfit() -> None:
    assert list(misfits([1, "x"], list[int])) == [((1,), "x", int)]
    assert list(misfits({"a": [1, "x"]}, dict[str, list[int]] | None)) == [(("a", 1), "x", int)]
    assert list(misfits([1], tuple[int, str])) == [((), [1], tuple[int, str])]
    assert list(misfits(Grid((1, [2])), int)) == [((1,), [2], int)]
    assert list(misfits(Grid(("a", 1, "b")), int)) == [((0,), "a", int), ((2,), "b", int)]
    assert [path for path, _, _ in misfits({"a": ["x", 1, "y"]}, dict[str, list[int]])] == [
        ("a", 0),
        ("a", 2),
    ]
    assert list(misfits("x", int | None)) == [((), "x", int | None)]


def test_annotations_for_people() -> None:
    names = {
        int: "whole number",
        float | None: "number or null",
        list[str]: "list of text",
        tuple[int, str]: "list of 2: whole number, text",
        dict[str, bool]: "mapping of text to true or false",
        Literal["a", 1]: "'a' or 1",
        FitBase: "test_types.FitBase",
        Schema: "Schema",
        Any: "anything",
        Annotated[int, "x"]: "whole number",
    }
    assert {annotation: name_of(annotation) for annotation in names} == names


def test_values_for_people() -> None:
    values: tuple[Any, ...] = (None, True, 1.5, "x", [], {}, BASE)
    assert [kind_of(value) for value in values] == [
        *("null", "true", "1.5", "'x'", "a list", "a mapping", "!FitBase"),
    ]
    assert len(kind_of("x" * 1000)) == 60


def test_hints_of_classes_and_functions() -> None:
    assert hints(FitOther)["call"] == Callable[[], int] | None
    assert hints(FitBase.schema)["return"] is Schema
    assert hints(torch.nn.Linear)["in_features"] is int

    class Local:
        def __init__(self, one: int, two: NoSuchName, three: Path) -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    assert hints(Local) == {"one": int, "three": Path, "return": None}
    assert hints(len) == {}


def test_who_wants_blueprints() -> None:
    wanting = (Schema, Schema | None, list[Schema], Mapping[str, Schema | int])
    assert all(map(wants_schema, wanting))
    assert not any(map(wants_schema, (None, int, Component, list[Component], Any)))


def test_the_module_says_what_it_is_for() -> None:
    assert compile_types.__doc__
