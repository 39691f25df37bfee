"""Links: their text, and the objects that they lead to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambe.compile import Component, Link, Registrable, Schema
from flambe.compile.build import Builder
from flambe.compile.reader.document import read_text
from flambe.errors import ConfigError


class LinkNest(Component):
    def __init__(self, eggs: Any = 2, twigs: Any = ()) -> None:
        self.eggs = eggs
        self.twigs = twigs
        self.made = [object()]

    @property
    def double(self) -> int:
        return 2 * int(self.eggs)

    @property
    def failing(self) -> int:
        raise RuntimeError("no such luck")


class LinkUser(Component):
    def __init__(self, one: Any = None, two: Any = None, three: Any = None) -> None:
        self.one = one
        self.two = two
        self.three = three


class LinkBlueprint(Component):
    def __init__(self, inner: Schema, other: Any = None) -> None:
        self.inner = inner
        self.other = other


class LinkText(Registrable):
    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def from_yaml(cls, value: Any) -> LinkText:
        return cls(value)


# -- text ---------------------------------------------------------------------------------------

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,9}", fullmatch=True)
attributes = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
keys = st.one_of(
    st.integers(min_value=0, max_value=10**12),
    st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs", "Cc"]), min_size=1),
    st.sampled_from(["1", "01", "-1", "'", "''", "'a'", '"a"', "٣", "²", " ", "a b", "1.5"]),
)
links = st.builds(
    Link, names, st.lists(keys, max_size=4).map(tuple), st.lists(attributes, max_size=3).map(tuple)
)


@given(links)
def test_the_text_of_a_link_is_read_as_the_same_link(link: Link) -> None:
    assert Link.parse(str(link)) == link
    assert [type(key) for key in Link.parse(str(link)).keys] == [type(key) for key in link.keys]


@given(links)
def test_a_link_in_a_file_is_the_same_link(link: Link) -> None:
    from flambe.compile import yaml

    document = read_text(yaml.dump([link, {"a": link}, [[link, 1]]]))
    document.raise_problems()
    assert document.root == [link, {"a": link}, [[link, 1]]]


@given(st.text())
def test_any_other_text_is_refused_or_written_the_same_again(text: str) -> None:
    try:
        link = Link.parse(text)
    except ValueError:
        return
    assert Link.parse(str(link)) == link


@pytest.mark.parametrize(
    "text", ["", " ", "-a", "a[", "a]", "a[]", "a.", ".a", "a..b", "a.b[c]", "a b", "a[b]c", "a.1"]
)
def test_what_is_no_link(text: str) -> None:
    with pytest.raises(ValueError, match="not a link"):
        Link.parse(text)


def test_the_parts_of_a_link() -> None:
    link = Link.parse("model[embedder][layers][0]['1'].rnn.hidden_size")
    assert link == Link("model", ("embedder", "layers", 0, "1"), ("rnn", "hidden_size"))
    assert link.path == ("model", "embedder", "layers", 0, "1")


# -- objects ------------------------------------------------------------------------------------


def build(**names: Any) -> dict[str, Any]:
    builder = Builder(names)
    return {name: builder.stage(name) for name in names}


def link(text: str) -> Link:
    return Link.parse(text)


def test_links_lead_to_the_very_same_object() -> None:
    made = build(
        nest=Schema.of(LinkNest, eggs=3),
        first=Schema.of(LinkUser, link("nest"), [link("nest")], {"a": link("nest")}),
        last=Schema.of(LinkUser, link("first[0]"), link("first.one"), link("nest.made")),
    )
    nest, first, last = made.values()
    assert nest is first.one is first.two[0] is first.three["a"] is last.one is last.two
    assert last.three is nest.made


def test_a_stage_is_built_once_whoever_asks() -> None:
    builder = Builder({"nest": Schema.of(LinkNest), "user": Schema.of(LinkUser, link("nest"))})
    assert builder.stage("user").one is builder.stage("nest") is builder.stage("nest")
    assert builder.at(("nest",)) is builder.stage("nest")


def test_links_in_the_own_stage() -> None:
    inner = Schema.of(LinkUser, one=Schema.of(LinkNest, eggs=4), two=link("user[one][one]"))
    made = build(
        user=Schema.of(
            LinkUser,
            one=inner,
            two=[link("user[one]"), link("user[one][one][eggs]"), link("user[one][one].double")],
            three={"a": link("user[two][0]"), "b": link("user[two]")},
        )
    )
    user = made["user"]
    assert user.one.two is user.one.one
    assert user.two == [user.one, 4, 8]
    assert user.three["a"] is user.one
    assert user.three["b"] is user.two


def test_brackets_walk_the_configuration_and_dots_the_object() -> None:
    made = build(
        nest=Schema.of(LinkNest, eggs=3),
        user=Schema.of(LinkUser, link("nest[eggs]"), link("nest.eggs"), link("nest.double")),
    )
    assert [made["user"].one, made["user"].two, made["user"].three] == [3, 3, 6]


def test_links_go_on_through_links() -> None:
    made = build(
        nest=Schema.of(LinkNest, eggs=Schema.of(LinkNest), twigs=["a", Schema.of(LinkNest)]),
        first=Schema.of(LinkUser, one=link("nest"), two=link("nest.eggs")),
        second=Schema.of(LinkUser, one=link("first[one]"), two=link("first[two]")),
        last=Schema.of(
            LinkUser,
            one=link("second[one][eggs]"),
            two=link("second[one][twigs][1]"),
            three=link("second[two][eggs]"),
        ),
    )
    nest, last = made["nest"], made["last"]
    assert last.one is nest.eggs
    assert last.two is nest.twigs[1]
    assert last.three == nest.eggs.eggs


def test_links_into_what_a_class_reads_itself() -> None:
    text = Schema("", "", content={"a": [Schema.of(LinkNest)]})
    text.target, text.tag = Schema.of(LinkText).target, "LinkText"
    made = build(text=text, user=Schema.of(LinkUser, link("text[a][0]"), link("text.value")))
    assert made["user"].one is made["text"].value["a"][0]
    assert made["user"].two is made["text"].value


def test_names_may_be_built_elsewhere() -> None:
    first = Builder({"nest": Schema.of(LinkNest, eggs=Schema.of(LinkNest))})
    names = {**first.names, "user": Schema.of(LinkUser, link("nest"), link("nest[eggs]"))}
    second = Builder(names, lambda name: first if name == "nest" else None)
    user = second.stage("user")
    assert user.one is first.stage("nest")
    assert user.two is first.stage("nest").eggs
    assert second.stage("nest") is first.stage("nest")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none", "!@ none leads to nothing: there is no 'none'"),
        ("nest[egs]", "!@ nest[egs] leads to nothing that is built before it"),
        ("nest.egs", "!@ nest.egs: nest is a LinkNest without 'egs'"),
        ("nest.made.egs", "!@ nest.made.egs: nest.made is a list without 'egs'"),
        ("user[two]", "!@ user[two] leads to nothing that is built before it"),
        ("user", "!@ user leads to nothing that is built before it"),
    ],
)
def test_links_that_lead_nowhere_when_they_are_built(text: str, message: str) -> None:
    user = Schema.of(LinkUser, one=link(text), two=Schema.of(LinkNest))
    with pytest.raises(ConfigError) as raised:
        build(nest=Schema.of(LinkNest), user=user)
    assert raised.value.problems[0].message == message


def test_dots_that_walk_the_configuration_are_told_how() -> None:
    nest = Schema.of(LinkNest, eggs={"text": Schema.of(LinkNest), "other": {"deep": {"text": 1}}})
    for text, there in (
        ("nest.text.size", "nest[eggs][text].size"),
        ("nest.deep", "nest[eggs][other][deep]"),
    ):
        with pytest.raises(ConfigError) as raised:
            build(nest=nest, user=Schema.of(LinkUser, one=link(text)))
        (problem,) = raised.value.problems
        assert problem.hint.endswith(f"is in the configuration; brackets walk there:   !@ {there}")
        assert Link.parse(there)


def test_an_attribute_that_raises() -> None:
    from flambe.errors import ComponentError

    with pytest.raises((ComponentError, RuntimeError), match="no such luck"):
        build(nest=Schema.of(LinkNest), user=Schema.of(LinkUser, link("nest.failing")))


def test_a_parameter_that_asks_for_a_blueprint_gets_it() -> None:
    inner = Schema.of(LinkNest, eggs=link("nowhere"))
    made = Schema.of(LinkBlueprint, inner=inner, other=Schema.of(LinkNest))()
    assert made.inner is inner
    assert isinstance(made.other, LinkNest)
