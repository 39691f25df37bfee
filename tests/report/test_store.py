"""What is kept in memory of a run is what its files say, whenever they were looked at."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambe.experiment import journal
from flambe.progress import RunFolder, RunState, StageState, Status, liveness
from flambe.report.change_feed import ChangeFeed
from flambe.report.store import Curve, Store
from flambe.report.summary import changed_row, curves, measured, run_summary, thin, whole_row
from tests.experiment.lab import until
from tests.report.written import Written

IDS = ("a", "b", "c")


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return Written(tmp_path / "output__trial")


def line(identity: str, **changes: Any) -> bytes:
    return json.dumps({"id": identity, **changes}).encode() + b"\n"


steps = st.builds(
    lambda i, step, metric: line(i, step=step, metric=metric, best=metric),
    st.sampled_from(IDS),
    st.integers(1, 6),
    st.one_of(st.none(), st.floats(-1, 1, allow_nan=False)),
)
states = st.builds(
    lambda i, status: line(i, status=status), st.sampled_from(IDS), st.sampled_from(list(Status))
)
names = st.builds(lambda i: line(i, stage="train", name=i), st.sampled_from(IDS))
gone = st.builds(lambda i: line(i, gone=True), st.sampled_from(IDS))
broken = st.one_of(
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"") + b"\n"),
    st.sampled_from([b'{"id": "a", "st\n', b"[1]\n", b'{"id": 3}\n', b"\n", b"null\n"]),
)
journals = st.lists(st.one_of(names, steps, steps, states, gone, broken), max_size=40).map(b"".join)


def seen(store: Store) -> dict[str, Any]:
    return {
        stage: [
            (whole_row(row), list(row.curve.steps), repr(list(row.curve.values)))
            for row in store.of(stage)
        ]
        for stage in store.order
    }


@given(journals, st.lists(st.integers(0, 4000), max_size=6))
def test_reading_as_it_grows_equals_reading_from_the_start(written: bytes, cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = RunFolder(Path(place)).variants
        growing = Store(place)
        for cut in [*sorted(cut % (len(written) + 1) for cut in cuts), len(written)]:
            path.write_bytes(b"") if not path.exists() else None
            with open(path, "ab") as stream:
                stream.write(written[path.stat().st_size : cut])
            growing.refresh(now=True)
        whole = Store(place)
        whole.refresh(now=True)
        assert {k: v for k, v in seen(growing).items() if v} == {
            k: v for k, v in seen(whole).items() if v
        }


@given(journals, st.lists(st.integers(0, 4000), max_size=6))
def test_a_page_that_is_told_what_is_new_knows_all(written: bytes, cuts: list[int]) -> None:
    """What the scripts of a page do with the news, done here."""
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        folder.write_state(RunState("r", status=Status.FINISHED, stages=[StageState("train")]))
        folder.variants.touch()
        store = Store(place)
        store.refresh(now=True)
        news = ChangeFeed({"stage": "train"}, store.cursor)
        rows: dict[str, dict[str, Any]] = {}
        points: dict[str, dict[int, Any]] = {}
        for cut in [*sorted(cut % (len(written) + 1) for cut in cuts), len(written)]:
            with open(folder.variants, "ab") as stream:
                stream.write(written[folder.variants.stat().st_size : cut])
            store.refresh(now=True)
            told = news.changes(store)
            if told is None:  # the page is loaded anew
                news = ChangeFeed({"stage": "train"}, store.cursor)
                rows = {row.variant.id: whole_row(row) for row in store.of("train")}
                points = {r.variant.id: dict(r.curve.since(-1)) for r in store.of("train")}
                continue
            changes: list[dict[str, Any]] = told.get("rows", [])
            for change in changes:
                identity, new = change["id"], change.pop("points", [])
                if change.pop("rewound", False):
                    points[identity] = {}
                rows.setdefault(identity, {}).update(change)
                points.setdefault(identity, {}).update(new)
        assert rows == {row.variant.id: whole_row(row) for row in store.of("train")}
        assert {i: p for i, p in points.items() if p} == {
            row.variant.id: dict(row.curve.since(-1))
            for row in store.of("train")
            if row.curve.steps
        }


def test_a_step_that_is_done_again_replaces_what_followed() -> None:
    curve = Curve()
    for look, step in enumerate((1, 2, 3, 4), 1):
        curve.add(step, step / 10, look)
    curve.add(3, 0.9, 5)
    assert curve.since(-1) == [(1, 0.1), (2, 0.2), (3, 0.9)]
    assert curve.since(4) == [(1, 0.1), (2, 0.2), (3, 0.9)]  # told whole: points were taken back
    assert curve.since(5) == []
    curve.add(4, math.nan, 6)
    assert curve.since(5) == [(4, None)]


def test_one_step_of_one_variant_is_all_that_is_told(run: Written) -> None:
    for number in range(50):
        run.add(f"{number:016}", rate=number)
        run.step(f"{number:016}", 1, 0.5)
    store = Store(run.folder.root)
    store.refresh(now=True)
    news = ChangeFeed({"stage": "train"}, store.cursor)
    news.changes(store)
    run.step(f"{7:016}", 2, 0.4)
    store.refresh(now=True)
    told = news.changes(store)
    assert told is not None
    (row,) = told.pop("rows")
    assert row == {"id": f"{7:016}", "step": 2, "metric": 0.4, "best": 0.5, "points": [(2, 0.4)]}
    assert told.get("run", {}) == {}
    assert news.changes(store) == {}


def test_the_overview_is_told_of_the_stages_that_changed(tmp_path: Path) -> None:
    stages = [StageState(f"s{number}", "Walk", total=1) for number in range(30)]
    run = Written(tmp_path, stages)
    for stage in stages:
        run.add(f"{stage.name}-id", stage=stage.name, rate=1, words="long " * 30)
        run.step(f"{stage.name}-id", 1, 0.5)
    store = Store(tmp_path)
    store.refresh(now=True)
    news = ChangeFeed({}, store.cursor)
    assert len(json.dumps(news.changes(store))) > 10_000
    run.step("s4-id", 2, 0.7)
    store.refresh(now=True)
    told = news.changes(store)
    assert told is not None
    (item,) = told["stages"]["items"]
    assert item["name"] == "s4"
    assert set(item) <= {"name", "best", "until"}
    assert "keys" not in told["stages"]
    assert len(json.dumps(told)) < 1_000


@pytest.mark.faults
def test_a_state_that_is_cut_off_or_garbage_leaves_the_last_good_one(run: Written) -> None:
    run.walked(2)
    store = Store(run.folder.root)
    store.refresh(now=True)
    for junk in (b"", b"{", b"[]", b"\x00\xff" * 9, b"[" * 100_000, b'{"name": 3, "stages": [5]}'):
        run.folder.state.write_bytes(junk)
        store.refresh(now=True)
        assert run_summary(store)["name"] == "trial", junk
        run.folder.previous_state.write_bytes(junk)
        store.refresh(now=True)
        assert run_summary(store)["done"] == 2, junk
    # Who comes only now sees the variants, and no run.
    late = Store(run.folder.root)
    late.refresh(now=True)
    assert run_summary(late)["status"] == "empty"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = st.dictionaries(
    st.sampled_from(
        [*vars(RunState("")), "id", "stage", "choices", "parents", "metric", "best", "step", "kept"]
    ),
    json_values,
)


@given(fields, st.lists(fields, max_size=5))
def test_whatever_stands_in_the_files_can_be_shown(
    state: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        folder.write_state(RunState("r", status=Status.RUNNING, stages=[StageState("train")]))
        text = json.loads(folder.state.read_text())
        folder.state.write_text(json.dumps({**text, **state}))
        folder.variants.write_text(
            "".join(
                json.dumps({"id": "x", "stage": "train", "name": "n"} | extra) + "\n"
                for extra in [{}, *lines]
            )
        )
        store = Store(place)
        store.refresh(now=True)
        # As it is sent: strict JSON.
        json.dumps(run_summary(store), allow_nan=False)
        json.dumps(curves(store, "train"), allow_nan=False)
        json.dumps([whole_row(row) for row in store.of("train")], allow_nan=False)
        for row in store.of("train"):
            json.dumps(changed_row(row, 0), allow_nan=False)


def replaced(run: Written) -> Iterator[None]:
    run.walked(3)
    yield
    shutil.rmtree(run.folder.root)
    yield
    Written(run.folder.root, name="another").walked(5, steps=9)
    yield


def test_a_run_that_is_begun_anew_replaces_all(run: Written) -> None:
    for looks in (True, False):  # at each moment, or only before and after
        store, stages = Store(run.folder.root), replaced(run)
        next(stages)
        store.refresh(now=True)
        epoch = store.epoch
        next(stages)
        if looks:
            store.refresh(now=True)
            assert run_summary(store)["status"] == "empty"
            assert not store.rows
        next(stages)
        store.refresh(now=True)
        assert store.epoch != epoch
        assert run_summary(store)["name"] == "another"
        assert len(store.rows) == 5
        assert all(list(row.curve.steps) == list(range(1, 10)) for row in store.rows.values())
        shutil.rmtree(run.folder.root)
        run = Written(run.folder.root)


def test_a_run_whose_files_are_removed_one_by_one_is_gone(run: Written) -> None:
    """What is looked at meanwhile is the state before."""
    run.walked(3)
    store = Store(run.folder.root)
    store.refresh(now=True)
    assert run.folder.previous_state.exists()
    run.folder.state.unlink()
    store.refresh(now=True)
    assert store.status == "running"
    look = store.revision
    store.refresh(now=True)
    assert store.revision == look
    shutil.rmtree(run.folder.root)
    store.refresh(now=True)
    assert store.status == "empty"


def test_the_same_file_with_another_run_in_it_is_read_from_its_start(run: Written) -> None:
    """File systems give the number of a removed file to the next one."""
    run.walked(2)
    store = Store(run.folder.root)
    store.refresh(now=True)
    Written(run.folder.root / "beside", name="another").walked(6, steps=9)
    other = RunFolder(run.folder.root / "beside")
    run.folder.variants.write_bytes(other.variants.read_bytes())
    shutil.copy(other.state, run.folder.state)
    store.refresh(now=True)
    assert [len(row.curve.steps) for row in store.rows.values()] == [9] * 6


def test_a_run_that_is_resumed_goes_on_where_it_was(run: Written) -> None:
    run.walked(2)
    store = Store(run.folder.root)
    store.refresh(now=True)
    epoch = store.epoch
    # What is done is noted again, and what was begun goes on.
    again = Written(run.folder.root)
    again.journal.variants.update(run.journal.variants)
    first, second = run.journal.variants
    again.journal.change(first, status=Status.REUSED)
    again.journal.change(second, status=Status.RUNNING, attempts=2)
    again.step(second, 5, 9.0)
    store.refresh(now=True)
    assert store.epoch != epoch
    assert [row.variant.status for row in store.of("train")] == [Status.REUSED, Status.RUNNING]
    assert [list(row.curve.steps) for row in store.of("train")] == [[1, 2, 3, 4], [1, 2, 3, 4, 5]]


def test_a_run_whose_process_is_gone_was_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        run = Written(tmp_path, pid=process.pid)
        run.add("a", rate=1)
        store = Store(tmp_path)
        store.refresh(now=True)
        assert store.status == "running"
    finally:
        process.kill()
        process.wait()
    store.refresh(now=True)
    assert store.status == "interrupted"
    (stage,) = run_summary(store)["stages"]
    assert stage["status"] == "interrupted"


def test_a_process_that_only_has_its_number_is_not_the_run(tmp_path: Path) -> None:
    run = Written(tmp_path)
    store = Store(tmp_path)
    store.refresh(now=True)
    assert store.status == "running"
    run.journal.run.started = time.time() - 10 * 365 * 24 * 3600  # long before this process
    run.journal.write()
    store.refresh(now=True)
    assert store.status == "interrupted"


def test_a_run_elsewhere_that_is_silent_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Written(tmp_path)
    run.journal.run.host = "another-host"
    run.journal.write()
    store = Store(tmp_path)
    store.refresh(now=True)
    assert store.status == "running"
    monkeypatch.setattr(liveness, "SILENT", 0.2)
    time.sleep(0.3)
    store.refresh(now=True)
    assert store.status == "interrupted"
    run.journal.write()  # its beat
    store.refresh(now=True)
    assert store.status == "running"


def test_a_silent_run_tells_that_it_lives(run: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.folder.state.stat().st_mtime_ns
    run.journal.lines([])
    assert run.folder.state.stat().st_mtime_ns == before
    monkeypatch.setattr(journal, "BEAT_PERIOD", 0.05)
    time.sleep(0.1)
    run.journal.lines([])  # as executors do now and then
    assert run.folder.state.stat().st_mtime_ns > before
    # Three beats may be lost before a run elsewhere counts as dead.
    assert liveness.SILENT >= 3 * 30


def test_pages_are_made_while_the_run_is_read(run: Written) -> None:
    """Nothing changes under the hands of what is made of a run."""
    store, stop, failed = Store(run.folder.root), threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            store.refresh(now=True)

    def ask() -> None:
        try:
            while not stop.is_set():
                store.read(run_summary)
                store.read(curves, "train")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look), threading.Thread(target=ask)]
    for thread in threads:
        thread.start()
    try:
        for number in range(300):
            run.add(f"{number:016}", rate=number)
            for step in (1, 2, 3, 2, 3):
                run.journal.change(f"{number:016}", step=step, metric=0.5)
        until(lambda: failed or len(store.rows) == 300, "all is read")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


# -- curves that are very long ------------------------------------------------------------------

values = st.one_of(st.none(), st.floats(-10, 10, allow_nan=False))


@given(st.lists(values, max_size=300), st.integers(4, 50))
def test_a_thinned_curve_keeps_its_ends_and_its_peaks(
    points: list[float | None], most: int
) -> None:
    steps = list(range(len(points)))
    kept, shown = thin(steps, points, most=most)
    assert len(kept) <= most
    assert [points[step] for step in kept] == shown
    assert kept == sorted(set(kept))
    if points:
        assert kept[0] == 0
        assert kept[-1] == len(points) - 1
    known = [point for point in points if point is not None]
    if known:
        present = [point for point in shown if point is not None]
        assert max(present) == max(known)
        assert min(present) == min(known)
    if len(points) <= most:
        assert shown == points


def test_figures_that_are_no_numbers_are_null_and_named(run: Written) -> None:
    figures = {"a": math.nan, "b": 0.5, "c": None, "d": -math.inf, "e": math.inf}
    for name, figure in figures.items():
        run.add(name * 16, rate=name)
        run.step(name * 16, 1, figure)
    store = Store(run.folder.root)
    store.refresh(now=True)
    rows = {row.variant.id[0]: whole_row(row) for row in store.of("train")}
    assert [rows[name]["metric"] for name in "abcde"] == [None, 0.5, None, None, None]
    names = [rows[name]["not_finite"] for name in "abcde"]
    low, high = {"metric": "-inf", "best": "-inf"}, {"metric": "inf", "best": "inf"}
    assert names == [{"metric": "nan"}, {}, {}, low, high]
    summary = run_summary(store)
    json.dumps(summary, allow_nan=False)
    assert [best["id"][0] for best in summary["stages"][0]["best"]] == ["e", "b", "d"]
    assert measured(store, "train")[1] == [0.5]  # a forest takes no infinities
    news = ChangeFeed({"stage": "train"}, store.cursor)
    news.changes(store)
    run.step("a" * 16, 2, 0.25)
    store.refresh(now=True)
    told = news.changes(store)
    assert told is not None
    [row] = told["rows"]
    assert (row["metric"], row["not_finite"]) == (0.25, {})
