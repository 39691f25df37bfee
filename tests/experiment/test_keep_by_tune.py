"""The checkpoints that are kept, and damaged ones, where Ray Tune runs the trials."""

from __future__ import annotations

from typing import Any

import pytest

import flambe
from flambe.experiment.storage.checkpoints import BEST, FINAL
from flambe.progress import Status
from tests.experiment.lab import Lab
from tests.experiment.test_keep import folders, steps

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("ray")]


def test_the_same_checkpoints_are_kept_as_without_tune(lab: Lab, one_ray: None) -> None:
    pipeline = """
        train: !pieces.Walk {steps: 8, rate: !g [1.0, 2.0]}
        next: !pieces.Walk {steps: 1, start: !@ train}
        """
    more = "keep: {train: {last: 2, best: 1, every: 3}, next: {last: 1}}"
    outcome = lab.run(pipeline, more=more, seed=1, executor=None).fine()
    kept = [steps(folder) for folder in folders(outcome, "train")]
    for variant, folder in zip(outcome.of("train"), folders(outcome, "train"), strict=True):
        assert flambe.load(folder / BEST / "checkpoint.flambe").value == variant.best
    stored = [variant.stored_bytes for variant in outcome.variants]
    assert min(stored) > 0
    assert outcome.state.stored_bytes == sum(stored)
    lab.name = "inline"
    inline = lab.run(pipeline, more=more, seed=1).fine()
    assert [steps(folder) for folder in folders(inline, "train")] == kept
    assert all(names[BEST] == 4 for names in kept)  # long removed, if only the latest were kept


@pytest.mark.parametrize("gone", ["false", pytest.param("true", marks=pytest.mark.long)])
def test_a_retry_continues_from_the_checkpoint_before_a_damaged_one(
    lab: Lab, one_ray: None, gone: str
) -> None:
    results = f"results: '{lab.folder.root}', gone: {gone}"
    outcome = lab.run(
        f"a: !pieces.Spoiling {{{results}, record: RECORD}}", more="max_failures: 1", executor=None
    ).fine()
    assert outcome.statuses("a") == [Status.FINISHED]
    lines = lab.records()
    again = [line for line in lines[lines.index("fail 1") :] if line.startswith("step")]
    assert again == ["step 1 3", "step 1 4", "step 1 5"]
    assert any("it continues after step 2" in text for _, _, text in outcome.watcher.lines)
    (folder,) = folders(outcome, "a")
    assert steps(folder) == {FINAL: 5}


def test_a_resumed_run_keeps_what_the_first_one_kept(lab: Lab, one_ray: None) -> None:
    pipeline: Any = "a: !pieces.Failing {at: 6, times: 1, steps: 8, record: RECORD}"
    more = "max_failures: 0\nkeep: {every: 2}"
    lab.run(pipeline, more=more, executor=None)
    outcome = lab.run(pipeline, more=more, executor=None, resume=True).fine()
    (folder,) = folders(outcome, "a")
    assert sorted(steps(folder).values()) == [2, 4, 6, 8]
    assert steps(folder)[FINAL] == 8
