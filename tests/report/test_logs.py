"""Logs, read from any place in either direction, against a reader that reads all of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flambe.report import logs
from flambe.report.files import RunPath
from flambe.report.logs import LineFilter
from flambe.report.payloads import LogPage, LogTail
from tests.report.written import Written


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    """Let lines lie across the pieces that are read."""
    patch = pytest.MonkeyPatch()
    patch.setattr(logs, "CHUNK", 64)
    yield
    patch.undo()


heads = st.builds(
    lambda level, stage, text: f"2026-01-02 03:04:05 {level:<7} {stage} | {text}",
    st.sampled_from(["DEBUG", "INFO", "stdout", "WARNING", "ERROR"]),
    st.sampled_from(["train", "train rate=1", "training", "evaluate x=2"]),
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20),
)
texts = st.one_of(heads, st.text("ab é", max_size=12), st.just(""))
contents = st.builds(
    lambda lines, ended: ("\n".join(lines) + ("\n" if ended and lines else "")).encode(),
    st.lists(texts, max_size=30),
    st.booleans(),
)
wants = st.builds(
    LineFilter,
    search=st.sampled_from(["", "", "a", "É", "rate"]),
    level=st.sampled_from(["", "INFO", "WARNING", "ERROR"]),
    stage=st.sampled_from(["", "train"]),
    sources=st.booleans(),
)


def naive(content: bytes, wanted: LineFilter) -> list[tuple[int, str]]:
    found, at = [], 0
    for line in content.split(b"\n"):
        if (at < len(content) or line) and naive_wants(line.decode(), wanted):
            found.append((at, wanted.parse(at, line)["text"]))
        at += len(line) + 1
    return found


def naive_wants(line: str, wanted: LineFilter) -> bool:
    if wanted.search and wanted.search.lower() not in line.lower():
        return False
    if not (wanted.level or wanted.stage):
        return True
    if not line.startswith("2026-"):
        return False
    _, _, level, rest = line.split(maxsplit=3)
    if wanted.level and logs.LEVELS[level] < logs.LEVELS[wanted.level]:
        return False
    return not wanted.stage or rest.split(" | ")[0].split(" ")[0] == wanted.stage


def told(found: LogPage | LogTail) -> list[tuple[int, str]]:
    return [(line["at"], line["text"]) for line in found["lines"]]


@given(contents, wants, st.integers(1, 7))
def test_reading_backwards_finds_every_line_once(
    content: bytes, wanted: LineFilter, most: int
) -> None:
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(content)
        found: list[tuple[int, str]] = []
        place, more = None, True
        while more:
            answer = logs.before(RunPath.of(path), place, wanted, most)
            assert len(answer["lines"]) <= most
            found = told(answer) + found
            place, more = answer["start"], answer["more"]
        assert found == naive(content, wanted)


# The last line is unfinished, and begins in another piece than the one that is read first.
@example(
    b"\n2026-01-02 03:04:05 DEBUG   train | " + b"0" * 27,
    b"2026-01-02 03:04:05 INFO    train | ",
    LineFilter(level="INFO"),
    0,
)
@given(contents, contents, wants, st.integers(0, 500))
def test_what_is_shown_and_what_comes_are_the_whole(
    content: bytes, added: bytes, wanted: LineFilter, cut: int
) -> None:
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(content)
        answer = logs.before(RunPath.of(path), None, wanted)
        found, at = dict(told(answer)), answer["end"]
        whole = content + added + b"\n"
        for end in (len(content) + cut % (len(added) + 1), len(whole)):
            with open(path, "ab") as stream:
                stream.write(whole[path.stat().st_size : end])
            tail = logs.after(RunPath.of(path), at, wanted)
            if tail.get("skipped"):
                return
            # A line that had no end is told again when it has one.
            found = {place: text for place, text in found.items() if place < at}
            found.update(told(tail))
            at = tail["at"]
        assert sorted(found.items()) == naive(whole, wanted)
        assert at == len(whole)


def test_what_goes_by_too_fast_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("".join(f"line {number}\n" for number in range(500)))
    found = logs.after(RunPath.of(path), 7, LineFilter())
    assert found["skipped"] > 0
    assert told(found)[-1][1] == "line 499"
    assert found["at"] == path.stat().st_size
    assert told(found)[0][1].startswith("line ")  # a whole one


def test_a_log_that_was_begun_anew_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("short\n")
    found = logs.after(RunPath.of(path), 100, LineFilter())
    assert found == {"lines": [], "at": 0, "size": 6, "restarted": True}
    path.unlink()
    assert logs.after(RunPath.of(path), 0, LineFilter())["lines"] == []
    assert logs.before(RunPath.of(path), None, LineFilter())["lines"] == []


def test_a_line_without_an_end_costs_little(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"first\n" + b"x" * 10_000)
    found = logs.before(RunPath.of(path), None, LineFilter())
    assert max(len(line["text"]) for line in found["lines"]) <= 64 * 4
    path.write_bytes(b"y" * 200_000 + b"\nlast\n")
    (line, *_) = reversed(logs.before(RunPath.of(path), None, LineFilter())["lines"])
    assert line["text"] == "last"


def test_a_search_gives_up_after_a_while_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.log"
    path.write_text("needle\n" + "hay\n" * 500)
    monkeypatch.setattr(logs, "SEARCH_SECONDS", 0.0)
    found, goes = logs.before(RunPath.of(path), None, LineFilter("needle")), 1
    while found["more"]:
        found, goes = logs.before(RunPath.of(path), found["start"], LineFilter("needle")), goes + 1
    assert goes > 10
    assert told(found) == [(0, "needle")]


def test_lines_of_a_real_log_are_taken_apart(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.add("a" * 16, rate=1)
    run.line("a" * 16, "all | is well", "WARNING")
    (line,) = logs.before(RunPath.of(run.folder.log), None, LineFilter(sources=True))["lines"]
    assert (line["level"], line["source"], line["text"]) == (
        "WARNING",
        "train rate=1",
        "all | is well",
    )
    (line,) = logs.before(
        RunPath.of(tmp_path / "train" / ("a" * 16) / "variant.log"), None, LineFilter()
    )["lines"]
    assert (line["level"], line["source"], line["text"]) == ("WARNING", "", "all | is well")
