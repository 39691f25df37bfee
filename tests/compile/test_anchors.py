"""A component that is written once, and stands in several places, is one object."""

from __future__ import annotations

import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest

import flambe
from flambe.compile import Component, Link, Schema, yaml
from flambe.compile.build import Builder
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file, read_text
from flambe.compile.values import Anchor, shared, walk
from flambe.experiment.variants.expansion import Expander
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import alternatives

CASES = Path(__file__).parent.parent / "cases"
HEADER = "heron_ext: ./ext/heron_ext\n---\n"


def blueprint(body: str) -> Schema:
    loaded = yaml.load(HEADER + textwrap.dedent(body).lstrip("\n"))
    assert isinstance(loaded, Schema)
    return loaded


def pipeline_of(document: Any) -> dict[str, Any]:
    check(document)
    document.raise_problems()
    stages: dict[str, Any] = document.root.kwargs["pipeline"]
    return stages


SEVERAL = """
!heron_ext.HeronWorker
nest: &m !heron_ext.HeronNest {eggs: 3}
extra: [*m, &list [&q !heron_ext.HeronNest {}, 1], *list]
more: {deep: !heron_ext.HeronWorker {nest: *m}}
"""


def test_a_file_without_stages_builds_it_once() -> None:
    made = blueprint(SEVERAL)()
    assert made.nest is made.extra[0] is made.more["deep"].nest
    assert made.nest.eggs == 3
    # A list that is anchored has the same things in it.
    assert made.extra[1][0] is made.extra[2][0] is not made.nest
    again = blueprint(SEVERAL)
    assert again().nest is not again().nest  # each time that it is built


def test_two_files_have_nothing_in_common() -> None:
    both = Schema.of(Pair, blueprint(SEVERAL), blueprint(SEVERAL))()
    assert both.one.nest is both.one.extra[0]
    assert both.one.nest is not both.other.nest


class Bolt(Component):
    def __init__(self, size: int) -> None:
        self.size = size
        self.register_attrs("size")


class Pair(Component):
    def __init__(self, one: Any, other: Any) -> None:
        self.one, self.other = one, other


def test_it_is_written_as_an_anchor_and_aliases() -> None:
    loaded = blueprint(SEVERAL)
    for text in (
        yaml.dump(loaded),
        yaml.dump(loaded()),
        yaml.dump(pickle.loads(pickle.dumps(loaded))),
    ):
        assert text.count("&m !heron_ext.HeronNest") == 1
        assert text.count("*m\n") == 2
        assert "&q" in text
        again = yaml.load(text)
        assert again == loaded
        assert shared(again) == shared(loaded)
        assert yaml.dump(again) == text
        made = again()
        assert made.nest is made.extra[0]


def test_names_that_stand_for_several_things_are_told_apart() -> None:
    text = """
        !heron_ext.HeronWorker
        nest: &m !heron_ext.HeronNest {eggs: 1}
        extra: [*m, &m !heron_ext.HeronNest {eggs: 2}, *m]
        more: [&id001 !heron_ext.HeronNest {}, *id001, &other!name !heron_ext.HeronNest {}, *other!name]
        """
    loaded = blueprint(text)
    again = yaml.load(yaml.dump(loaded))
    assert (again, shared(again)) == (loaded, shared(loaded))
    made = again()
    assert made.nest is made.extra[0]
    assert made.extra[1] is made.extra[2]
    assert [nest.eggs for nest in made.extra] == [1, 2, 2]
    assert made.more[0] is made.more[1] is not made.more[2] is made.more[3]


def test_what_is_merged_is_written_again() -> None:
    made = blueprint(
        """
        !heron_ext.HeronWorker
        extra:
          common: &common {nest: &m !heron_ext.HeronNest {}, extra: *m}
          one: !heron_ext.HeronWorker {<<: *common}
          two: !heron_ext.HeronWorker {<<: *common}
        """
    )().extra
    assert made["common"]["nest"] is made["common"]["extra"]
    assert made["one"].nest is made["one"].extra
    assert len({id(made[name].nest) for name in ("one", "two")} | {id(made["common"]["nest"])}) == 3


def test_a_blueprint_that_was_changed_is_another_one() -> None:
    loaded = blueprint(SEVERAL)
    loaded.kwargs["more"]["deep"].kwargs["nest"].kwargs["eggs"] = 7
    made = loaded()
    assert (made.nest.eggs, made.more["deep"].nest.eggs) == (3, 7)
    again = yaml.load(yaml.dump(loaded))
    assert again == loaded
    assert shared(again) == shared(loaded)


def test_each_stage_has_its_own() -> None:
    names = pipeline_of(read_file(CASES / "anchors_shared.yaml"))
    names["last"].kwargs["extra"] = None
    builder = Builder(names)
    first, last = builder.stage("first"), builder.stage("last")
    assert first.nest is first.extra[0] is first.more.nest
    assert first.extra[1] is first.extra[2] is not first.nest
    assert first.nest is not last.nest
    assert first.nest.eggs == last.nest.eggs == 4


def test_links_lead_to_each_place_of_it() -> None:
    names = pipeline_of(
        read_text(
            HEADER
            + textwrap.dedent(
                """
                !Experiment
                name: herons
                pipeline:
                  first: !heron_ext.HeronWorker
                    extra: &m !heron_ext.HeronOpen {twigs: [&t !heron_ext.HeronNest {}]}
                    more: [*m, !@ "first[extra][twigs][0]", !@ "first[more][0][twigs][0]"]
                  next: !heron_ext.HeronWorker
                    extra: [!@ "first[extra]", !@ "first[more][0]", !@ "first[more][0][twigs][0]"]
                """
            )
        )
    )
    builder = Builder(names)
    first, following = builder.stage("first"), builder.stage("next")
    (twig,) = first.extra.values["twigs"]
    assert first.more == [first.extra, twig, twig]
    assert following.extra == [first.extra, first.extra, twig]


def test_options_in_it_are_chosen_once() -> None:
    options = pipeline_of(read_file(CASES / "anchors_shared.yaml"))["options"].kwargs
    link = Link("options", ("nest",))
    assert options["extra"][0] == options["extra"][1].elements[0] == link
    inside, alone = options["more"].elements
    # In one element of an option it is the same; in another one it is written once more.
    assert inside.kwargs["extra"] == Link("options", ("more", "nest"))
    assert isinstance(alone, Schema)


def test_elements_of_options_that_no_variant_has_together() -> None:
    """Each place of an anchor, with what is in the others: linked, written again or refused."""
    anchored = "&m !heron_ext.HeronNest {eggs: !g [1, 2]}"
    for first, later, expected in (
        (anchored, "*m", "link"),
        (anchored, "!g [*m, 3]", "link"),
        (f"!g [{anchored}, *m, *m]", "3", "no link"),
        (f"!g [{anchored}, 3]", "*m", "refused"),
        (f"!g [{anchored}, 3]", "!g [*m, 4]", "refused"),
        (f"!g [[{anchored}, *m], [*m, *m, 5]]", "3", "two links"),
        (f"!g [[{anchored}, !g [*m, 4]], 3]", "5", "link"),
        (f"!g [[!g [{anchored}, 4], *m], 3]", "5", "refused"),
    ):
        text = f"{HEADER}!Experiment\nname: h\npipeline:\n  a: !heron_ext.HeronFlock [{first}, {later}]\n"
        document = read_text(text)
        check(document)
        links = sum(isinstance(value, Link) for _, value in walk(document.root))
        assert len(document.problems) == (expected == "refused"), (first, later)
        counts = {"link": 1, "two links": 2, "no link": 0, "refused": 0}
        assert links == counts[expected], (first, later)
        if expected != "refused":
            assert alternatives(document.root.kwargs["pipeline"]["a"], ("a",), 0)


@pytest.mark.integration
def test_many_aliases_are_read_built_and_written() -> None:
    aliases = ", ".join(["*m"] * 20_000)
    loaded = blueprint(f"!heron_ext.HeronFlock [&m !heron_ext.HeronNest {{}}, {aliases}]")
    assert len({id(bird) for bird in loaded().birds}) == 1
    assert yaml.dump(loaded).count("*m\n") == 20_000
    option = f"!g [&m !heron_ext.HeronNest {{eggs: !g [1, 2]}}, {aliases}]"
    for value in (option, f"[{option[3:].strip('[]')}]"):
        text = f"{HEADER}!Experiment\nname: h\npipeline:\n  a: !heron_ext.HeronFlock\n  - {value}\n"
        assert not read_text(text).problems


def test_a_search_space_is_drawn_from_wherever_it_stands() -> None:
    stage = pipeline_of(
        read_text(
            f"{HEADER}!Experiment\nname: h\npipeline:\n  a: !heron_ext.HeronWorker\n"
            "    rate: &r !tune.uniform [0.0, 1.0]\n    extra: *r\n"
            "    nest: &n !heron_ext.HeronNest {eggs: !tune.randint [1, 5]}\n    more: *n\n"
        )
    )["a"].kwargs
    assert stage["extra"] == stage["rate"]
    assert stage["more"] == Link("a", ("nest",))


def test_whoever_takes_a_blueprint_is_given_one() -> None:
    def stage(eggs: str) -> Any:
        return pipeline_of(
            read_text(
                f"{HEADER}!Experiment\nname: h\npipeline:\n  a: !heron_ext.HeronWorker\n"
                f"    nest: &n !heron_ext.HeronNest {{eggs: {eggs}}}\n"
                "    more: !heron_ext.HeronTypes {blueprint: *n}\n"
            )
        )

    assert Builder(stage("3")).stage("a").more.given["blueprint"] == stage("3")["a"].kwargs["nest"]
    assert (
        stage("!g [1, 2]")["a"].kwargs["more"].kwargs["blueprint"]
        == stage("!g [1, 2]")["a"].kwargs["nest"]
    )


def identity(config: object) -> str:
    """Return the identity of a stage with a configuration."""
    [variant] = Expander({"a": config}).expand("a", {})
    return variant.id


def test_one_object_is_another_variant_than_two_equal_ones() -> None:
    one = blueprint("!heron_ext.HeronWorker {nest: &m !heron_ext.HeronNest {}, extra: *m}")
    two = blueprint(
        "!heron_ext.HeronWorker {nest: !heron_ext.HeronNest {}, extra: !heron_ext.HeronNest {}}"
    )
    assert one == two
    assert identity(one) != identity(two)
    assert canonical_text(one) != canonical_text(two)
    named = blueprint("!heron_ext.HeronWorker {nest: &x !heron_ext.HeronNest {}, extra: *x}")
    assert identity(one) == identity(named)


def test_its_state_is_saved_once_and_it_is_one_object_again(tmp_path: Path) -> None:
    anchor = Anchor("m")
    one, other = Schema.of(Bolt, 2), Schema.of(Bolt, 2)
    one.anchor = other.anchor = anchor
    made = Schema.of(Pair, one, Schema.of(Pair, other, 5))()
    assert made.one is made.other.one
    made.one.size = 11
    assert list(made.get_state()) == ["", "one", "other"]
    flambe.save(made, str(tmp_path / "saved"))
    loaded = flambe.load(str(tmp_path / "saved"), trust=True)
    assert loaded.one is loaded.other.one
    assert loaded.one.size == 11
