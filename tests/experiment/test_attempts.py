"""Attempts at a variant are numbered: what one that was given up writes late does not count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flambe.experiment.executors.tune.trainable import MAX_CHECKPOINTS
from flambe.experiment.storage.checkpoints import (
    FINAL,
    RESUMED,
    Checkpoints,
    read_manifest,
)
from flambe.experiment.storage.manifest import MANIFEST
from tests.experiment.lab import Lab

pytestmark = pytest.mark.integration


def checkpoint(folder: Path, name: str, **known: int) -> Path:
    """Write a checkpoint that is whole."""
    place = folder / name
    place.mkdir(parents=True)
    manifest: dict[str, Any] = {"metric": None, "best": None, "done": False, "files": {}}
    manifest |= known
    (place / MANIFEST).write_text(json.dumps(manifest))
    return place


def test_a_later_attempt_is_newer_whatever_the_steps(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    folder = tmp_path / "a" / "v"
    # As versions before wrote it; then a host that was given up, and the one that took over.
    checkpoint(folder, RESUMED, step=3)
    assert checkpoints.latest(str(folder)) == str(folder / RESUMED)
    checkpoint(folder, "checkpoint_000009", step=9, attempt=1)
    late = checkpoint(folder, f"checkpoint_{MAX_CHECKPOINTS + 8}", step=8, attempt=2)
    assert checkpoints.latest(str(folder)) == str(late)
    checkpoints.settle(str(folder), FINAL)
    assert [path.name for path in folder.iterdir()] == [FINAL]
    # The other one does not know of it yet.
    checkpoint(folder, "checkpoint_000010", step=10, attempt=1)
    assert checkpoints.latest(str(folder)) == str(folder / FINAL)


def test_attempts_of_a_run_come_after_those_of_the_run_before(lab: Lab) -> None:
    lab.run(
        "a: !pieces.Failing {at: 3, times: 1, steps: 4, record: RECORD}", more="max_failures: 0"
    )
    failed = lab.folder.read_variants()
    (entry,) = failed.values()
    folder = lab.folder.variant(entry.stage, entry.name)
    attempts = [read_manifest(path) for path in folder.glob("checkpoint*")]
    assert [manifest and manifest.attempt for manifest in attempts] == [1]
    lab.run(resume=True)
    manifest = read_manifest(folder / FINAL)
    assert manifest is not None
    assert manifest.attempt == 2
