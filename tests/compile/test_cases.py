"""The golden cases: one file for each tag and for each mistake.

A file ``error_*.yaml`` says in its first lines what is wrong with it, all of it:

    # error: 7:5 unknown keyword 'lerning_rate' for !Trainer
    # hint: did you mean 'learning_rate'?

The place is compared exactly, the message as a whole, and the hint up to a ``…`` at its end. ``FILE``
stands for the path, ``-`` for a mistake without a place.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Grid, Link, Sample, Schema, yaml
from flambe.compile.checks.calls import check
from flambe.compile.reader.composing import MAX_BYTES
from flambe.compile.reader.document import header, read_file, read_text
from flambe.compile.values import ClusterResource
from flambe.errors import ConfigError, Problem

CASES = Path(__file__).parent.parent / "cases"
VALID = sorted(path.stem for path in CASES.glob("*.yaml") if not path.stem.startswith("error_"))
ERRORS = sorted(path.stem for path in CASES.glob("error_*.yaml"))


def case(name: str) -> Path:
    return CASES / f"{name}.yaml"


def root_of(source: Path | str) -> Any:
    document = read_file(source) if isinstance(source, Path) else read_text(source)
    root = document.root
    check(document, alone=not (isinstance(root, Schema) and root.tag == "Experiment"))
    document.raise_problems()
    return root


def problems_of(path: Path) -> list[Problem]:
    try:
        document = read_file(path)
        check(document)
        document.raise_problems()
    except ConfigError as error:
        return list(error.problems)
    return []


# -- what is right ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALID)
def test_loading_and_dumping_is_the_identity(name: str) -> None:
    root = root_of(case(name))
    text = yaml.dump(root)
    again = root_of(text)
    assert again == root
    assert repr(kinds(again)) == repr(kinds(root))
    assert yaml.dump(again) == text


@pytest.mark.parametrize("name", VALID)
def test_the_public_function_reads_it_too(name: str) -> None:
    loaded = yaml.load(case(name))
    dumped = yaml.dump(loaded)
    stream = io.StringIO()
    assert yaml.dump(loaded, stream) == dumped == stream.getvalue()
    if not name.endswith("_root"):
        assert loaded == root_of(case(name))
        assert yaml.load(io.BytesIO(dumped.encode())) == loaded
    else:  # a class that reads its own YAML is loaded at once
        assert not isinstance(loaded, Schema)
        assert yaml.dump(yaml.load(io.StringIO(dumped))) == dumped


def kinds(value: Any) -> Any:
    """Return the value with the types of scalars, which equality passes over."""
    if isinstance(value, Schema):
        parts = (value.args, value.kwargs, value.content)
        return (value.target, value.tag, *(kinds(part) for part in parts))
    if isinstance(value, dict):
        return [(kinds(key), kinds(child)) for key, child in value.items()]
    if isinstance(value, list | tuple):
        return [kinds(child) for child in value]
    if isinstance(value, Grid):
        return Grid, kinds(value.elements)
    return type(value).__name__, value


def stage(name: str, stage: str = "train") -> Schema:
    found = root_of(case(name)).kwargs["pipeline"][stage]
    assert isinstance(found, Schema)
    return found


def test_links_are_read() -> None:
    train = stage("link").kwargs
    assert train["nest"] == Link("nest")
    assert train["size"] == Link("nest", ("eggs",))
    assert train["extra"] == Link("nest", (), ("twigs",))
    assert train["more"][0] == Link("nest", ("twigs", 1))


def test_options_are_read() -> None:
    grid, sample = stage("grid").kwargs, stage("sample").kwargs
    assert grid["rate"] == Grid((0.1, 1, 0.01))
    assert grid["extra"] == Grid(("a", "1", None, True, [1, 2], {"a": 1}))
    assert [e and e.kwargs for e in grid["nest"].elements] == [{}, {"eggs": 1}, None]
    assert sample["size"] == Sample(1, 10, 3)
    assert sample["size"].whole
    assert sample["rate"] == Sample(0.0, 1.0, 4, 2)
    assert not sample["extra"].whole


def test_a_choice_is_written_as_a_list_or_as_ray_takes_it() -> None:
    written = {name: stage("tune_choice", name).kwargs["extra"] for name in ("plain", "listed")}
    assert written["plain"] == written["listed"]
    assert written["plain"].args == [["a", "b", 3]]
    assert written["plain"]().categories == ["a", "b", 3]
    others = {n: stage("tune_choice", n).kwargs["extra"]() for n in ("named", "lists", "one")}
    assert others["named"].categories == ["a", "b", 3]
    assert others["lists"].categories == [[1, 2], [3]]
    assert others["one"].categories == ["a"]
    assert stage("tune_choice", "maps").kwargs["extra"]().categories == [{"a": 1}]


def test_resources_of_a_cluster_are_read() -> None:
    resources = root_of(case("cluster")).kwargs["resources"]
    assert resources["far"] == ClusterResource("s3://bucket/a b")
    assert resources["number"] == ClusterResource("5")


def test_targets() -> None:
    sequential = root_of(case("torch"))
    assert sequential.target == "torch.nn.modules.container:Sequential"
    assert [arg.args for arg in sequential.args] == [[3, 4], [], [], []]
    assert sequential.args[2].kwargs == {"in_features": 4, "out_features": 2, "bias": False}
    factory = root_of(case("factory")).kwargs["nest"]
    assert factory.target == "heron_ext:HeronNest.from_twigs"
    assert factory().twigs == ["willow"] * 3


def test_values_under_a_tag_keep_their_kind() -> None:
    contents = [arg.content for arg in root_of(case("registrable_scalar")).args]
    assert contents == [1.5, "1.5", 3, "three words here", None, None, "null", "", False, "a: b"]
    args = [arg.args for arg in root_of(case("scalar_content")).args]
    assert args == [
        *([5], [], [1.5], ["1.5"], [True], ["true"], ["some words"], [None], [""], ["~"]),
        *(["line\nline"], ["2020-01-01"]),
    ]
    lists = [arg.content for arg in root_of(case("registrable_list")).args]
    assert lists[:3] == [[1, "two", [3]], [], ["one"]]
    tables = [arg.content for arg in root_of(case("registrable_mapping")).args]
    assert tables[1] == {}


def test_anchors_and_merge_keys() -> None:
    first, last = (stage("anchors", name).kwargs for name in ("first", "last"))
    assert first["extra"] == last["extra"] == [1, 2, 4]
    assert first["nest"] == last["nest"]
    assert first["nest"] is not last["nest"]
    assert root_of(case("anchor_used_again")).args == [1, 1, 2, 2]
    merged = root_of(case("merge_keys")).kwargs
    assert merged["wide"] == {"rate": 0.5, "size": 2}
    assert merged["both"] == {"extra": 1, "rate": 3, "size": 2, "more": 4}
    assert merged["component"].kwargs == {"size": 2, "rate": 0.5, "extra": 5}


def test_words_are_read_by_the_rules_of_yaml_1_2() -> None:
    words = root_of(case("words"))
    assert words[:6] == ["no", "no", "1e-3", 0.001, "", " x "]
    assert words[12:20] == ["~", None, "0o7", 7, 31, "2020-01-01", "2020-01-01", float("inf")]
    assert list(words[-1]) == ["a", "b", "c d", 1, "1", 1.5, False]


def test_the_header_is_kept() -> None:
    text = yaml.dump(yaml.load(case("factory")))
    assert text.startswith("heron_ext: ./ext/heron_ext\n---\n")
    # A class that is written by its name alone needs the extension as well.
    assert yaml.dump(yaml.load(case("bare_tag"))).startswith("heron_ext: ")
    assert "heron_ext" not in yaml.dump(yaml.load(case("torch")))
    assert header(case("factory")) == {"heron_ext": "./ext/heron_ext"}
    assert header(case("torch")) == {}


def test_an_extension_that_is_missing_can_still_be_read_from_the_header() -> None:
    assert header(case("error_extension_missing")) == {"heron_missing": "./ext/heron_missing"}


# -- what is wrong ------------------------------------------------------------------------------


def expected_of(path: Path) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, _, text = line.removeprefix("# ").partition(": ")
        if kind == "error":
            place, _, message = text.partition(" ")
            found.append((place, message.replace("FILE", str(path)), ""))
        elif kind == "hint":
            found[-1] = (*found[-1][:2], text)
        else:
            break
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.torch if "torch" in name else ()) for name in ERRORS],
)
def test_every_mistake_is_told_once_at_its_place(name: str) -> None:
    path = case(name)
    found = problems_of(path)
    told = [(place_of(p), p.message, p.hint) for p in found]
    expected = expected_of(path)
    assert expected, "the file names no mistakes"
    for position, (_, _, hint) in enumerate(expected):
        if hint.endswith("…") and position < len(told):
            start = hint.removesuffix("…")
            assert told[position][2].startswith(start)
            told[position] = (*told[position][:2], hint)
    assert told == expected
    lines = path.read_text(encoding="utf-8").splitlines()
    for problem in found:
        if problem.place is not None:
            assert problem.place.file == str(path)
            assert problem.place.text == [*lines, ""][problem.place.line - 1]


def place_of(problem: Problem) -> str:
    return f"{problem.place.line}:{problem.place.column}" if problem.place else "-"


def test_the_text_of_an_error_shows_the_line_and_a_caret() -> None:
    path = case("error_duplicate_key")
    text = str(ConfigError(problems_of(path)))
    assert text == (
        f"{path}:8:1: duplicate key 'eggs'\n"
        "    8 | eggs: 2\n"
        "      | ^^^^\n"
        "      = it is already on line 6"
    )


def test_the_public_function_raises_all_of_them() -> None:
    path = case("error_many_at_once")
    with pytest.raises(ConfigError) as raised:
        yaml.load(path)
    assert len(raised.value.problems) == len(expected_of(path))
    places = [p.place for p in raised.value.problems if p.place]
    assert places == sorted(places, key=lambda p: (p.line, p.column))


# -- what does not fit in a file of its own -----------------------------------------------------


def message_of(source: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        yaml.load(source)
    return str(raised.value)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    for data in (b"", b"\n\n", b"\xef\xbb\xbf", b"~\n", b"---\n...\n"):
        path.write_bytes(data)
        assert message_of(path).startswith(f"{path} is empty"), data


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file" in message_of(tmp_path / "none.yaml")
    assert "there is no file" in message_of(str(tmp_path / "none.yaml"))
    assert "cannot read" in message_of(tmp_path)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    data = "a: b\nname: Müller\n".encode("latin-1")
    path.write_bytes(data)
    assert message_of(path).startswith(f"{path}:2: not UTF-8 text")
    assert message_of(io.BytesIO(data)).startswith("<stream>:2: not UTF-8 text")
    path.write_bytes("a: b\n".encode("utf-16"))
    assert "not UTF-8 text" in message_of(path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "mark.yaml"
    data = b"\xef\xbb\xbfa: b\n"
    path.write_bytes(data)
    assert yaml.load(path) == yaml.load(io.BytesIO(data)) == {"a": "b"}


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"a: " + b"x" * MAX_BYTES)
    assert message_of(path).startswith(f"{path} is larger than 2 MiB")
    assert "larger than 2 MiB" in message_of(io.StringIO("a: " + "x" * MAX_BYTES))


@pytest.mark.parametrize(
    "name", ["billion_laughs", "billion_merges", "contains_itself", "much_too_deep"]
)
def test_what_would_take_for_ever_is_refused_at_once(name: str) -> None:
    assert problems_of(case(f"error_{name}"))


def test_many_ways_to_the_same_place_are_walked_once() -> None:
    stages = ["s0: {a: 1}"]
    stages += [f"s{n}: !g [!@ s{n - 1}, !@ s{n - 1}]" for n in range(1, 60)]
    lines = "\n".join(f"  {line}" for line in [*stages, "last: !@ s59[a]", "none: !@ s59[b]"])
    document = read_text(f"!Experiment\nname: ways\npipeline:\n{lines}\n")
    check(document)
    assert [p.message for p in document.problems] == [
        "!@ s59[b] leads to nothing: s59 has no keyword 'b' here"
    ]


def test_every_case_is_named_in_the_right_way() -> None:
    assert len(VALID) >= 40
    assert len(ERRORS) >= 80
    for name in VALID:
        assert not re.search("^# error", case(name).read_text(encoding="utf-8"), re.MULTILINE)
