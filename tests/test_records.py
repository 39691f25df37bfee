"""What a run left, as rows of a table: read from files alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from flambe.progress import (
    RunFolder,
    RunRecord,
    RunState,
    StageState,
    Status,
    change_line,
    flat_rows,
    run_folders,
)


def write(
    root: Path, variants: list[dict[str, object]], status: Status = Status.FINISHED, pid: int = 1
) -> RunFolder:
    root.mkdir(parents=True)
    folder = RunFolder(root)
    stages = [StageState("model", runs=False), StageState("train"), StageState("evaluate")]
    run = RunState("digits", status=status, started=100.0, stages=stages, pid=pid)
    run.host = socket.gethostname()
    folder.write_state(run)
    folder.variants.write_text("".join(map(change_line, variants)), encoding="utf-8")
    return folder


def variant(identity: str, stage: str, **fields: object) -> dict[str, object]:
    return {"id": identity, "stage": stage, "name": f"{stage}_{identity}", **fields}


def test_rows_are_stage_by_stage_and_the_best_first(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "output__digits",
        [
            variant("e", "evaluate", metric=0.1, status="finished"),
            variant("m", "model", status="finished"),
            variant("a", "train", metric=0.5, status="finished", choices={"lr": 0.1, "steps": 3}),
            variant("b", "train", metric=float("nan"), status="failed", error="no luck"),
            variant("c", "train", metric=0.9, status="reused", choices={"lr": 0.2}),
        ],
    )
    record = RunRecord.read(folder)
    assert record is not None
    assert [row.variant.id for row in record.rows()] == ["c", "a", "b", "e"]
    assert [row.variant.id for row in record.rows("evaluate")] == ["e"]
    assert record.rows("unknown") == []
    assert (record.best() or record.run).name == "evaluate_e"
    assert (record.best("train") or record.run).name == "train_c"
    first, second, third, _ = flat_rows(record.rows())
    # A hyper-parameter that is called like a column does not replace it.
    assert list(first) == [
        "stage", "variant", "lr", "params.steps",
        "metric", "best", "steps", "time", "state", "kept", "error", "path",
    ]  # fmt: skip
    assert (first["lr"], first["params.steps"], first["steps"]) == (0.2, None, 0)
    assert second["params.steps"] == 3
    assert (third["state"], third["error"]) == ("failed", "no luck")
    assert first["path"] == str(tmp_path / "output__digits" / "train" / "train_c")


def test_the_time_of_a_variant_ends_with_it_or_with_the_run(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "output__digits",
        [
            variant("a", "train", started=110.0, ended=115.5, status="finished"),
            variant("b", "train", started=110.0, status="running"),
            variant("c", "train"),
        ],
        Status.RUNNING,
        pid=2**31 - 1,  # of no process: the run was killed
    )
    record = RunRecord.read(folder)
    assert record is not None
    assert record.run.status is Status.INTERRUPTED
    times = {row.variant.id: row.seconds for row in record.rows()}
    assert times["a"] == 5.5
    assert times["b"] == (record.run.ended or 0) - 110.0
    assert times["c"] is None
    assert record.variants["b"].status is Status.INTERRUPTED
    assert record.variants["a"].status is Status.FINISHED


def test_the_runs_in_a_folder_are_those_with_a_state_the_latest_first(tmp_path: Path) -> None:
    for number, name in enumerate(("output__old", "output__new.20260101-120000", "output__mid")):
        folder = write(tmp_path / name, [])
        for path in (folder.state,):
            os.utime(path, (1000 + number, 1000 + (5 if number == 1 else number)))
    (tmp_path / "output__empty").mkdir()
    (tmp_path / "other").mkdir()
    names = [folder.root.name for folder in run_folders(tmp_path)]
    assert names == ["output__new.20260101-120000", "output__mid", "output__old"]
    own = tmp_path / "output__old"
    assert [folder.root for folder in run_folders(own)] == [own]
    assert run_folders(tmp_path / "missing") == []
    assert RunRecord.read(RunFolder(tmp_path / "output__empty")) is None
