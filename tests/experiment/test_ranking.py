"""Figures that are NaN, infinite or missing, from the component to the table."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flambe.cli.display import Display
from flambe.errors import Interrupted, RunError
from flambe.experiment.executors.inline import InlineExecutor
from flambe.progress import RunFolder, Status
from tests.experiment.lab import Lab

FIGURES = "train: !pieces.Fixed {value: !g [.nan, 0.5, null, -.inf, 0.7, .inf]}\n"


def refuse(name: str) -> None:
    raise ValueError(f"bare {name} in JSON")


def assert_strict(root: Path) -> None:
    """See that no file of a run holds what JSON has no word for."""
    files = [path for kind in ("*.json", "*.jsonl") for path in root.rglob(kind)]
    assert len(files) >= 5
    for path in files:
        text = path.read_text(encoding="utf-8")
        for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
            json.loads(part, parse_constant=refuse)


def test_the_table_ranks_numbers_then_nan_then_nothing(lab: Lab) -> None:
    lab.write(FIGURES)
    text = io.StringIO()
    lab.experiment().run(observer=Display(Console(file=text, width=100)), executor=InlineExecutor)
    rows = [line.split() for line in text.getvalue().splitlines() if "finished" in line]
    shown = [[part for part in row if part not in "│|"] for row in rows]
    ranks = {row[0]: row[1:3] for row in shown if row[0].isdigit()}
    assert [ranks[str(n)] for n in range(1, 6)] == [
        ["inf", "inf"],
        ["0.7", "0.7"],
        ["0.5", "0.5"],
        ["-inf", "-inf"],
        ["nan", "nan"],
    ]
    assert ranks["6"][0] == "None"
    best = lab.folder.read_variants().values()
    name = next(entry.name for entry in best if entry.metric == math.inf)
    assert f"train/{name}/checkpoint" in text.getvalue()
    assert_strict(lab.folder.root)


def test_reduce_keeps_numbers_only_and_says_so(lab: Lab) -> None:
    outcome = lab.run(FIGURES, more="reduce: {train: 5}").fine()
    kept = [entry.metric for entry in outcome.of("train") if entry.kept]
    assert kept == [0.5, -math.inf, 0.7, math.inf]
    assert any("4 of 6 variants are kept, and not 5" in note for note in outcome.watcher.notes)
    best = lab.run(FIGURES, more="reduce: {train: 1}", force=True).fine()
    assert [entry.metric for entry in best.of("train") if entry.kept] == [math.inf]


def test_reduce_of_nan_alone_is_an_error(lab: Lab) -> None:
    outcome = lab.run(
        "train: !pieces.Fixed {value: !g [.nan, null]}\nuse: !pieces.Fixed {other: !@ train}",
        more="reduce: {train: 1}",
    )
    error = outcome.raised()
    assert isinstance(error, RunError)
    assert "no variant of stage 'train' has a metric to rank by: of 1 it is NaN" in str(error)


@pytest.mark.parametrize("figures", ["[.nan, 0.7, 0.5]", "[0.7, .nan, 0.5]", "[0.7, 0.2, .nan]"])
def test_the_best_figure_survives_an_interruption(lab: Lab, figures: str) -> None:
    pipeline = f"train: !pieces.Measured {{figures: {figures}, record: RECORD, stop: 3}}"
    outcome = lab.run(pipeline)
    assert isinstance(outcome.error, Interrupted)
    resumed = lab.run(resume=True).fine()
    [entry] = resumed.of("train")
    assert (entry.status, entry.best, entry.step) == (Status.FINISHED, 0.7, 3)
    assert_strict(lab.folder.root)
    [again] = lab.run(resume=True).fine().of("train")
    assert (again.status, again.best) == (Status.REUSED, 0.7)
    assert repr(again.metric) == repr(entry.metric)


def test_a_run_of_before_that_took_nan_for_the_best_is_continued(lab: Lab) -> None:
    pipeline = "train: !pieces.Measured {figures: [.nan, 0.7, 0.5], record: RECORD, stop: 3}"
    lab.run(pipeline)
    for path in lab.folder.root.rglob("manifest.json"):
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        manifest.pop("not_finite", None)
        manifest["best"] = math.nan
        path.write_text(json.dumps(manifest), encoding="utf-8")
        assert "NaN" in path.read_text(encoding="utf-8")
    [entry] = lab.run(resume=True).fine().of("train")
    assert (entry.best, entry.metric) == (0.7, 0.5)
    assert_strict(RunFolder(lab.folder.root).root)


def test_a_scheduler_that_had_nothing_to_compare_is_named(lab: Lab) -> None:
    more = "schedulers: {train: !ray.ASHAScheduler }"
    pipeline = "train: !pieces.Fixed {value: !g [null, .nan]}"
    notes = lab.run(pipeline, more=more).fine().watcher.notes
    assert [note for note in notes if "!ray.ASHAScheduler had nothing to compare" in note]
    notes = lab.run(
        "train: !pieces.Fixed {value: !g [null, 1]}", more=more, force=True
    ).watcher.notes
    assert not [note for note in notes if "nothing to compare" in note]
