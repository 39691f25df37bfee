"""``!env``: which value it has, how it is written again, and where a secret is not."""

from __future__ import annotations

import copy
import pickle

import pytest

from flambe.compile import Component, yaml
from flambe.compile.reader.document import read_text
from flambe.compile.variables import EnvText, plain, provide, values_in
from flambe.errors import ConfigError
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import label
from flambe.logging import redact


class Kettle(Component):
    """Takes anything."""

    def __init__(self, size: object = None, more: object = None) -> None:
        self.size, self.more = size, more


@pytest.mark.parametrize(
    ("text", "written", "expected"),
    [
        ("8", "!env SIZE", 8),
        ("0.5", "!env SIZE", 0.5),
        ("1e-3", "!env SIZE", 1e-3),
        ("true", "!env SIZE", True),
        ("null", "!env SIZE", None),
        ("big", "!env SIZE", "big"),
        ("", "!env SIZE", ""),
        ("[1, 2]", "!env SIZE", "[1, 2]"),
        ("8", "!env {name: SIZE, type: str}", "8"),
        ("8", "!env {name: SIZE, type: float}", 8.0),
        ("8", "!env {name: SIZE, default: 3}", 8),
        (None, "!env {name: SIZE, default: 3}", 3),
        (None, "!env {name: SIZE, default: null}", None),
    ],
)
def test_values(
    text: str | None, written: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIZE", text) if text is not None else monkeypatch.delenv("SIZE", False)
    schema = yaml.load(f"!Kettle\nsize: {written}\n")
    built = schema().size
    assert built == expected
    assert type(built) is type(expected)
    assert canonical_text(schema.kwargs["size"]) == canonical_text(expected)
    dumped = yaml.dump(schema)
    assert yaml.load(dumped) == schema
    assert ("!env" in dumped) == (not isinstance(expected, bool | None))
    assert "!env" not in yaml.dump(schema, resolve=True)


def test_a_value_that_is_not_of_its_type_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "big")
    with pytest.raises(ConfigError, match="SIZE is not of type int: 'big'"):
        yaml.load("!Kettle\nsize: !env {name: SIZE, type: int}\n")


def test_a_secret_is_hidden_and_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETTLE_TOKEN", "heron-4711")
    monkeypatch.setenv("KETTLE_CODE", "willow-1234")
    schema = yaml.load(
        "!Kettle\nsize: !env KETTLE_TOKEN\nmore: !env {name: KETTLE_CODE, secret: true}\n"
    )
    built = schema()
    assert (built.size, built.more) == ("heron-4711", "willow-1234")
    for text in (
        yaml.dump(schema, resolve=True),
        yaml.dump(built),
        str(label(schema.kwargs["size"])),
    ):
        assert "heron" not in text
        assert "willow" not in text
        assert "!env" in text
    assert redact.hide("heron-4711 willow-1234") == "*** ***"
    with pytest.raises(ConfigError) as caught:
        yaml.load("!Kettle\nsize: !env {name: KETTLE_TOKEN, type: int}\n")
    assert "heron" not in str(caught.value)


def test_values_travel_with_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "big")
    value = yaml.load("!Kettle\nsize: !env SIZE\n").kwargs["size"]
    for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert isinstance(other, EnvText)
        assert other.variable == value.variable
        assert plain(other) == "big"


def test_on_a_cluster_the_values_are_those_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "!Kettle\nsize: !env SIZE\nmore: !env {name: COUNT, default: 3}\n"
    monkeypatch.setenv("SIZE", "big")
    monkeypatch.delenv("COUNT", raising=False)
    sent = values_in(yaml.load(text))
    assert sent == {"SIZE": "big", "COUNT": None}
    monkeypatch.setattr("flambe.compile.variables._provided", {})
    monkeypatch.setenv("SIZE", "of the host")
    monkeypatch.setenv("COUNT", "7")
    provide(sent)
    assert yaml.load(text).kwargs == {"size": "big", "more": 3}


def test_a_saved_component_reads_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "big")
    document = read_text("!Kettle\nsize: !env SIZE\n", declared=())
    assert [p.message for p in document.problems] == ["a saved component may not read !env"]
