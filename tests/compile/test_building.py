"""From blueprints to objects: calls, overrides, errors and their places."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Component, Grid, MappedRegistrable, Registrable, Sample, Schema, yaml
from flambe.compile.build import Builder, run_error
from flambe.compile.component import runs
from flambe.compile.values import ClusterResource, children, links, path_text, replace, walk
from flambe.errors import ComponentError, ConfigError, StateError


class BuildPart(Component):
    count = 0

    def __init__(self, size: int = 1, inner: Any = None) -> None:
        type(self).count += 1
        self.size = size
        self.inner = inner


class BuildFailing(Component):
    def __init__(self, message: str = "out of reeds") -> None:
        raise ValueError(message)

    def run(self) -> bool:
        raise KeyError("running")


class BuildStateFailing(Component):
    def __init__(self) -> None:
        raise StateError("our own errors pass as they are")


class BuildSchemas(Component):
    def __init__(
        self,
        one: Schema,
        many: Mapping[str, Schema] | None = None,
        either: Schema | int | None = None,
        other: Any = None,
    ) -> None:
        self.values = one, many, either, other


class BuildScalar(Registrable):
    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def from_yaml(cls, value: Any) -> BuildScalar:
        if value == "bad":
            raise ValueError("a bad value")
        return cls(value)

    def to_yaml(self) -> Any:
        return self.value


class BuildMapped(MappedRegistrable):
    def __init__(self, host: str, part: Any = None) -> None:
        self.host = host
        self.part = part


class BuildUnread(Registrable):
    pass


def test_loading_constructs_nothing() -> None:
    before = BuildPart.count
    schema = yaml.load("!BuildPart\nsize: 2\ninner: !BuildPart {size: 3}\n")
    assert BuildPart.count == before
    made = schema()
    assert BuildPart.count == before + 2
    assert (made.size, made.inner.size) == (2, 3)
    assert schema() is not made


def test_overrides_replace_keywords_and_leave_the_blueprint() -> None:
    schema = yaml.load("!BuildPart\nsize: 2\n")
    assert schema(size=5, inner="x").size == 5
    assert schema.kwargs == {"size": 2}
    assert schema(inner=Schema.of(BuildPart, 7)).inner.size == 7


def test_lists_and_mappings_are_built_through() -> None:
    part = Schema.of(BuildPart)
    made = Schema.of(BuildPart, inner={"a": [part, (part, 1)], "b": ClusterResource("/x")})()
    assert isinstance(made.inner["a"][0], BuildPart)
    assert isinstance(made.inner["a"][1][0], BuildPart)
    assert made.inner["b"] == ClusterResource("/x")


def test_parameters_of_blueprints_are_not_built() -> None:
    inner = Schema.of(BuildPart)
    made = Schema.of(BuildSchemas, inner, many={"a": inner}, either=inner, other=inner)()
    one, many, either, other = made.values
    assert isinstance(other, BuildPart)
    assert many["a"] is inner
    assert either is inner
    assert one is inner


def test_blueprints_given_by_position_are_not_built_either() -> None:
    inner = Schema.of(BuildPart)
    assert Schema.of(BuildSchemas, inner)().values[0] is inner


@pytest.mark.parametrize("option", [Grid((1, 2)), Sample(1, 2, 2)])
def test_an_option_has_no_single_value(option: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        Schema.of(BuildPart, inner=[option])()
    assert raised.value.problems[0].message == "an option at inner[0] has no single value"
    with pytest.raises(ConfigError, match="at the root"):
        Builder({}).build(option, ())


# -- classes that read their own YAML -----------------------------------------------------------


def test_registrables_are_loaded_at_once() -> None:
    assert yaml.load("!BuildScalar 1.5\n").value == 1.5
    assert yaml.load("!BuildScalar\na: [!BuildPart ]\n").value["a"][0].size == 1
    mapped = yaml.load("!BuildMapped\nhost: marsh\npart: !BuildPart {size: 4}\n")
    assert (mapped.host, mapped.part.size) == ("marsh", 4)
    assert BuildMapped.from_yaml({"host": "x"}).to_yaml() == {"host": "x"}


def test_registrables_inside_of_a_component() -> None:
    made = yaml.load("!BuildPart\ninner: [!BuildScalar x, !BuildMapped {host: y}]\n")()
    assert made.inner[0].value == "x"
    assert made.inner[1].host == "y"


def test_keywords_of_a_mapped_registrable_are_checked() -> None:
    with pytest.raises(ConfigError, match="unknown keyword 'hosst'"):
        yaml.load("!BuildMapped\nhosst: x\n")


def test_a_registrable_must_read_and_write() -> None:
    with pytest.raises(ComponentError, match=r"BuildUnread must implement from_yaml"):
        yaml.load("!BuildUnread 1\n")
    with pytest.raises(NotImplementedError, match=r"BuildUnread must implement to_yaml"):
        yaml.dump(BuildUnread())


# -- errors -------------------------------------------------------------------------------------

FAILING = (
    "!BuildPart\nsize: 1\ninner:\n- !BuildPart\n  inner:   !BuildFailing\n    message: empty\n"
)


def test_an_error_while_building_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "failing.yaml"
    path.write_text(FAILING)
    with pytest.raises(ComponentError) as raised:
        yaml.load(path)()
    error = raised.value
    assert error.message == "ValueError: empty"
    assert error.what == "building !BuildFailing"
    assert str(error.place) == f"{path}:5:12"
    assert "raise ValueError(message)" in error.traceback
    lines = Path(__file__).read_text().splitlines()
    line = lines.index("        raise ValueError(message)") + 1
    assert str(error) == (
        f"{path}:5:12: building !BuildFailing: ValueError: empty\n"
        "    5 |   inner:   !BuildFailing\n"
        "      |            ^^^^^^^^^^^^^\n"
        f"  at {__file__}:{line}, in __init__:   raise ValueError(message)"
    )
    assert isinstance(error.__cause__, ValueError)


def test_an_error_of_from_yaml_names_its_place() -> None:
    with pytest.raises(ComponentError) as raised:
        yaml.load("!BuildPart\ninner: !BuildScalar bad\n")()
    assert str(raised.value.place) == "<text>:2:8"
    assert "a bad value" in raised.value.message


def test_an_error_while_running_names_its_place() -> None:
    schema = yaml.load("!BuildPart\nsize: 3\n")
    error = run_error(schema(), KeyError("x"))
    assert error.what == "running !BuildPart"
    assert error.message == "KeyError: 'x'"
    assert str(error.place) == "<text>:1:1"


def test_an_error_of_what_was_made_in_python_has_no_place() -> None:
    error = run_error(BuildPart(), ValueError("x"))
    assert error.place is None
    assert str(error) == "running !BuildPart: ValueError: x"
    assert run_error(3, ValueError("x")).what == "running !int"


def test_errors_of_our_own_are_not_wrapped() -> None:
    with pytest.raises(StateError, match="pass as they are"):
        Schema.of(BuildPart, inner=Schema.of(BuildStateFailing))()


def test_a_class_that_is_gone_names_the_place() -> None:
    schema = Schema("heron_ext:NoSuchHeron", "heron_ext.NoSuchHeron")
    with pytest.raises(ComponentError, match=r"importing !heron_ext.NoSuchHeron: AttributeError"):
        schema()
    with pytest.raises(ComponentError, match="ModuleNotFoundError"):
        Schema("heron_of_nowhere:X", "X")()


def test_an_error_of_a_component_survives_pickling() -> None:
    with pytest.raises(ComponentError) as raised:
        yaml.load(FAILING)()
    error = raised.value
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ComponentError)
    assert (again.message, again.place, again.what, again.traceback) == (
        *(error.message, error.place, error.what, error.traceback),
    )
    assert str(again) == str(error)


# -- walks --------------------------------------------------------------------------------------


def test_the_walk_over_a_tree() -> None:
    tree = yaml.load("!BuildPart\nsize: 1\ninner: {a: [x, !BuildPart [3]], b: !BuildScalar [y]}\n")
    paths = [path_text(path) for path, _ in walk(tree)]
    assert paths == [
        *("", "size", "inner", "inner[a]", "inner[a][0]", "inner[a][1]", "inner[a][1][0]"),
        *("inner[b]", "inner[b][0]"),
    ]
    assert list(links(tree)) == []
    assert list(children("text")) == []


def test_replacing_makes_a_new_tree() -> None:
    tree = Schema.of(BuildPart, inner=Grid((1, [2], {"a": Schema.of(BuildPart, 3)})))

    def double(_: Any, value: Any) -> Any:
        return value * 2 if isinstance(value, int) else replace(value, double)

    changed = replace(tree, double)
    assert changed == Schema.of(BuildPart, inner=Grid((2, [4], {"a": Schema.of(BuildPart, 6)})))
    assert tree == Schema.of(BuildPart, inner=Grid((1, [2], {"a": Schema.of(BuildPart, 3)})))


def test_samples_are_drawn_the_same_and_never_repeat() -> None:
    for sample in (
        *(Sample(1, 10, 10), Sample(0.0, 1.0, 11, 1), Sample(0, 1.5, 20), Sample(2, 2, 1)),
        *(Sample(0.04, 0.26, 2, 1), Sample(0.1, 0.1, 1), Sample(0, 10**30, 5)),
        *(Sample(-1e300, 1e300, 5, 15), Sample(1e15, 1e15 + 1, 9, 9)),
    ):
        drawn = sample.draw("seed")
        assert drawn == sample.draw("seed")
        assert len(set(drawn)) == sample.n <= sample.distinct
        assert all(sample.low <= value <= sample.high for value in drawn)
        assert all(isinstance(value, int) == sample.whole for value in drawn)
    assert Sample(1, 10**9, 5).draw("a") != Sample(1, 10**9, 5).draw("b")


def test_how_many_values_a_sample_can_have() -> None:
    assert Sample(1, 3, 1).distinct == 3
    assert Sample(0.0, 0.1, 1, 1).distinct == 2
    assert Sample(0.05, 0.15, 1, 1).distinct == 1
    assert Sample(0.04, 0.06, 1, 1).distinct == 0
    assert Sample(0.5, 0.5, 1).distinct == 1
    assert Sample(1.0, 1.0000000000000002, 1).distinct == 2
    assert Sample(0.0, 1.0, 1).distinct > 10**9


def test_what_has_something_to_run() -> None:
    assert runs(BuildFailing)
    assert not runs(BuildPart)
    part = BuildPart()
    assert part.run() is False
    assert part.metric() is None
