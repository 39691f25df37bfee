"""Which checkpoints of a variant are kept, and what a run does about damaged ones."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

import flambe
from flambe.cli.results import stored_text
from flambe.compile.state.file_writer import FileWriter
from flambe.errors import ConfigError, StateError
from flambe.experiment.executors.tune.trial_history import TrialHistory
from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import BEST, FINAL, RESUMED, Checkpoints, read_manifest
from flambe.experiment.storage.disk_use import measure
from flambe.experiment.storage.manifest import MANIFEST, Manifest
from flambe.progress import RunState, Status, VariantState
from flambe.report.store import Store
from flambe.report.summary import run_summary
from tests.experiment.lab import Lab, Outcome

FIGURES = [0.1, 0.7, math.nan, 0.7, None, 0.4, 0.3]


def write(folder: Path, name: str, **fields: Any) -> Path:
    """Write a checkpoint that is whole."""
    writer = FileWriter(folder / name)
    writer.write("data", f"{name} {fields}")
    manifest = Manifest(**fields, files=dict(writer.entries))
    (folder / name / MANIFEST).write_text(manifest.dump())
    return folder / name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(folder: Path) -> dict[str, int]:
    """Return the names of checkpoints and their steps; each must be whole."""
    found = {path.name: read_manifest(path) for path in folder.glob("checkpoint*")}
    return {name: manifest.step for name, manifest in found.items() if manifest is not None}


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), [7]),
        (Retention(last=3), [5, 6, 7]),
        # Of equal ones the first; never NaN, or what has no figure.
        (Retention(best=1), [2, 7]),
        (Retention(best=2), [2, 4, 7]),
        (Retention(best=9), [1, 2, 4, 6, 7]),
        (Retention(every=3), [3, 6, 7]),
        (Retention(last=2, best=1, every=5), [2, 5, 6, 7]),
    ],
)
def test_the_last_the_best_and_each_nth_are_kept(retention: Retention, kept: list[int]) -> None:
    manifests = {
        f"v/{step}": Manifest(step, metric=metric) for step, metric in enumerate(FIGURES, 1)
    }
    selection = retention.select(manifests)
    assert selection is not None
    assert [step for step in range(1, 8) if f"v/{step}" in selection] == kept


def test_what_an_attempt_did_before_it_was_given_up_is_no_longer_part_of_the_history() -> None:
    manifests = {
        **{f"old {step}": Manifest(step, attempt=1, metric=step) for step in (1, 2, 8, 9)},
        **{f"new {step}": Manifest(step, attempt=2, metric=-step) for step in (3, 4)},
    }
    selection = Retention(last=9, best=1).select(manifests)
    assert selection is not None
    assert selection.best == ("old 2",)
    assert set(manifests) - {path for path in manifests if path in selection} == {"old 8", "old 9"}


def test_each_keeps_its_name_however_often_it_is_settled(tmp_path: Path) -> None:
    folder, checkpoints = tmp_path / "train" / "v", Checkpoints(str(tmp_path))
    retention = Retention(last=2, best=1, every=3)
    for step, metric in enumerate([0.1, 0.9, 0.2, 0.3, 0.4], 1):
        write(folder, f"checkpoint_{step:06d}", step=step, metric=metric)
    write(folder, "checkpoint_part", step=9).joinpath(MANIFEST).unlink()
    # An unfinished one, as --resume finds it: Tune's names are left to Tune.
    settled = checkpoints.settle(str(folder), RESUMED, retention)
    step_names = {f"checkpoint_step_{step:06d}": step for step in (2, 3, 4)}
    assert steps(folder) == {**step_names, RESUMED: 5}
    assert names(folder) == sorted([*step_names, RESUMED])
    for step, metric in ((6, 1.0), (7, 0.0)):
        write(folder, f"checkpoint_{step - 6:06d}", step=step, metric=metric, attempt=1)
    for _ in range(2):
        settled = checkpoints.settle(str(folder), FINAL, retention)
        # Step 6 is the best, one of the last two, and a third one: it is there under both names.
        final = {"checkpoint_step_000003": 3, "checkpoint_step_000006": 6, BEST: 6, FINAL: 7}
        assert steps(folder) == final
        assert (folder / BEST / "data").samefile(folder / "checkpoint_step_000006" / "data")
    assert settled is not None
    assert settled.size == sum(
        manifest.size
        for name in final
        if name != BEST and (manifest := read_manifest(folder / name))
    )
    # Another one becomes the best, and one that was is kept no longer.
    write(folder, "checkpoint_000009", step=8, metric=2.0, attempt=1)
    checkpoints.settle(str(folder), FINAL, Retention(best=1))
    assert steps(folder) == {BEST: 8, FINAL: 8}
    assert (folder / BEST / "data").samefile(folder / FINAL / "data")


def test_a_trial_keeps_its_best_while_it_runs(tmp_path: Path) -> None:
    history, folder = TrialHistory(), tmp_path / "a" / "v"
    history.hold(str(folder / "checkpoint_000001"), "another trial")
    for step, metric in enumerate([0.1, 0.9, 0.2, 0.3, 0.4, 0.5], 1):
        path = write(folder, f"checkpoint_{step:06d}", step=step, metric=metric)
        history.prune(
            Checkpoints(str(tmp_path)),
            "trial",
            (str(path), Manifest(step, metric=metric)),
            Retention(best=1, every=3),
        )
    history.upkeep.wait_settled()
    assert (folder / "checkpoint_000001").is_dir()
    history.release_all()
    history.upkeep.close()
    assert sorted(steps(folder).values()) == [2, 3, 5, 6]


# -- runs ---------------------------------------------------------------------------------------

PIPELINE = """
train: !pieces.Walk {steps: 6, rate: !g [1.0, 2.0], record: RECORD}
next: !pieces.Walk {steps: 1, start: !@ train, record: RECORD}
"""
KEEP = "keep: {train: {last: 2, best: 1, every: 4}}"


def folders(outcome: Outcome, stage: str) -> list[Path]:
    return [outcome.folder.variant(v.stage, v.name) for v in outcome.of(stage)]


def test_a_run_keeps_what_it_is_told_to_and_later_stages_build_on_the_last(lab: Lab) -> None:
    outcome = lab.run(PIPELINE, more=KEEP).fine()
    for variant, folder in zip(outcome.of("train"), folders(outcome, "train"), strict=True):
        figures = dict(outcome.figures(variant, "metric"))
        best = min(step for step, value in figures.items() if value == max(figures.values()))
        kept = steps(folder)
        assert kept.pop(BEST) == best
        assert kept.pop(FINAL) == 6
        assert kept == {"checkpoint_step_000004": 4, "checkpoint_step_000005": 5}
        loaded = flambe.load(folder / BEST / "checkpoint.flambe")
        assert loaded.value == variant.best
        assert variant.stored_bytes > 0
    for folder, parent in zip(folders(outcome, "next"), outcome.of("train"), strict=True):
        assert names(folder).count(FINAL) == 1
        assert steps(folder) == {FINAL: 1}
        assert flambe.load(folder / FINAL / "checkpoint.flambe").began == parent.metric
    # What the state says is what the checkpoints take, manifests aside.
    state, use = outcome.state, measure(outcome.folder)
    manifests = [p.stat() for p in outcome.folder.root.rglob(MANIFEST)]
    inodes = {status.st_ino: status.st_size for status in manifests}
    assert state.stored_bytes == use.size() - sum(inodes.values())
    assert state.stage("train").stored_bytes > state.stage("next").stored_bytes > 0
    before = [steps(folder) for folder in folders(outcome, "train")]
    # What is reused keeps them, though the file does not say so any more.
    again = lab.run(PIPELINE, resume=True).fine()
    assert again.statuses("train") == [Status.REUSED] * 2
    assert [steps(folder) for folder in folders(again, "train")] == before
    assert again.state.stored_bytes == state.stored_bytes


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("{last: 0}", "keep: last cannot be 0"),
        ("{best: -1}", "keep: best cannot be -1"),
        ("{first: 1}", "keep: 'first' names no checkpoints"),
        ("{train: {every: 0}}", "keep: every cannot be 0"),
        ("{train: {last: 1}, next: 2}", "keep: 2 does not say which checkpoints"),
        ("{tain: {last: 1}}", "keep: there is no stage 'tain'"),
    ],
)
def test_what_cannot_be_kept_is_refused(lab: Lab, keep: str, message: str) -> None:
    error = lab.run(PIPELINE, more=f"keep: {keep}").error
    assert isinstance(error, ConfigError)
    assert message in str(error)
    assert not lab.folder.root.exists()


# -- damage -------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def state_of(checkpoint: Path) -> Path:
    return next((checkpoint / "checkpoint.flambe").glob("state.*"))


@pytest.mark.parametrize("damage", [truncate, alter, Path.unlink])
@pytest.mark.parametrize("name", ["data", MANIFEST])
def test_damage_is_found_and_names_the_file(tmp_path: Path, name: str, damage: Any) -> None:
    folder, checkpoints = tmp_path / "a" / "v", Checkpoints(str(tmp_path))
    older = write(folder, "checkpoint_000001", step=1)
    newer = write(folder, "checkpoint_000002", step=2)
    assert checkpoints.damage(str(newer)) == ""
    assert checkpoints.drop_damaged(str(folder)) == []
    damage(newer / name)
    texts = checkpoints.drop_damaged(str(folder))
    if (damage, name) == (Path.unlink, MANIFEST):
        assert texts == []  # it was never written to its end
    else:
        assert len(texts) == 1
        assert f"{newer / name}" in texts[0]
    assert checkpoints.latest(str(folder)) == str(older)
    assert checkpoints.drop_damaged(str(folder)) == []


@pytest.mark.parametrize("done", [False, True])
def test_only_parts_of_what_is_not_done_are_removed(tmp_path: Path, done: bool) -> None:
    folder, checkpoints = tmp_path / "a" / "v", Checkpoints(str(tmp_path))
    write(folder, "checkpoint_000001", step=1)
    # The disk was full: the manifest had room, and the state has not.
    truncate(write(folder, "checkpoint_000002", step=2) / "data")
    (write(folder, "checkpoint_000003", step=3) / MANIFEST).unlink()
    status = Status.FINISHED if done else Status.INTERRUPTED
    checkpoints.remove_parts([VariantState("1", "a", "v", status=status)])
    assert len(names(folder)) == (3 if done else 1)
    assert "checkpoint_000001" in names(folder)


def test_checkpoints_of_earlier_versions_are_read(tmp_path: Path) -> None:
    folder, checkpoints = tmp_path / "a" / "v", Checkpoints(str(tmp_path))
    path = write(folder, "checkpoint_000001", step=1)
    old = json.loads((path / MANIFEST).read_text())
    del old["digest"], old["digests"]
    (path / MANIFEST).write_text(json.dumps(old))
    assert checkpoints.drop_damaged(str(folder)) == []
    assert checkpoints.latest(str(folder)) == str(path)
    truncate(path / "data")
    assert checkpoints.latest(str(folder)) is None


FAILS = "a: !pieces.Failing {at: 5, times: 1, steps: 6, record: RECORD}"


@pytest.mark.parametrize("damage", [truncate, alter])
def test_a_resumed_variant_continues_from_the_checkpoint_before_a_damaged_one(
    lab: Lab, damage: Any
) -> None:
    keep = "max_failures: 0\nkeep: {last: 2}"
    (folder,) = folders(lab.run(FAILS, more=keep), "a")
    assert sorted(steps(folder).values()) == [3, 4]
    latest = max(folder.glob("checkpoint*"), key=lambda path: steps(folder)[path.name])
    damaged = state_of(latest)
    damage(damaged)
    before = len(lab.records())
    outcome = lab.run(resume=True).fine()
    assert [v.step for v in outcome.of("a")] == [6]
    (note,) = [text for text in outcome.watcher.notes if str(damaged) in text]
    assert "continues from its checkpoint at step 3" in note
    done = [line for line in lab.records()[before:] if line.startswith("step")]
    assert len(done) == 3  # 4, 5 and 6


def test_a_resumed_variant_starts_again_if_nothing_sound_is_left(lab: Lab) -> None:
    (folder,) = folders(lab.run(FAILS, more="max_failures: 0"), "a")
    for path in folder.glob("checkpoint*"):
        alter(state_of(path))
    before = len(lab.records())
    outcome = lab.run(resume=True).fine()
    assert any("starts again" in text for text in outcome.watcher.notes)
    assert len([line for line in lab.records()[before:] if line.startswith("step")]) == 6
    assert steps(folder) == {FINAL: 6}


def test_a_damaged_result_is_an_error_that_names_it_and_resume_runs_it_again(lab: Lab) -> None:
    first = PIPELINE.partition("next:")[0]
    outcome = lab.run(first, more=KEEP).fine()
    expected = outcome.metrics("train")
    damaged, other = folders(outcome, "train")
    alter(state_of(damaged / FINAL))
    failed = lab.run(PIPELINE, more=KEEP, resume=True)
    message = str(failed.raised())
    assert f"{state_of(damaged / FINAL)} is not what was written" in message
    assert "--resume" in message
    again = lab.run(PIPELINE, more=KEEP, resume=True).fine()
    assert again.statuses("train") == [Status.FINISHED, Status.REUSED]
    assert again.metrics("train") == pytest.approx(expected)
    assert steps(damaged)[FINAL] == steps(other)[FINAL] == 6


def test_a_truncated_result_is_run_again_at_once(lab: Lab) -> None:
    outcome = lab.run(PIPELINE, more=KEEP).fine()
    damaged, _ = folders(outcome, "train")
    truncate(state_of(damaged / FINAL))
    again = lab.run(PIPELINE, more=KEEP, resume=True).fine()
    assert again.statuses("train") == [Status.FINISHED, Status.REUSED]
    assert any("continues from its checkpoint at step" in text for text in again.watcher.notes)
    assert again.metrics("train") == pytest.approx(outcome.metrics("train"))


def test_what_a_killed_process_left_is_removed_at_the_next_start(lab: Lab) -> None:
    (folder,) = folders(lab.run(FAILS, more="max_failures: 0"), "a")
    part = write(folder, "checkpoint_part_x", step=5)
    (part / MANIFEST).unlink()
    lab.run(resume=True).fine()
    assert steps(folder) == {FINAL: 6}
    assert [name for name in names(folder) if name.startswith("checkpoint")] == [FINAL]


def test_the_summary_and_the_site_say_how_much_room_checkpoints_take(lab: Lab) -> None:
    outcome = lab.run(PIPELINE, more=KEEP).fine()
    state = outcome.state
    text = stored_text(state)
    assert re.fullmatch(r"\d+ KiB: train \d+ KiB, next [\d.]+ KiB", text)
    assert stored_text(RunState("empty")) == ""
    store = Store(lab.folder.root)
    store.refresh(now=True)
    summary = run_summary(store)
    assert summary["stored_bytes"] == state.stored_bytes
    assert [s["stored_bytes"] for s in summary["stages"]] == [s.stored_bytes for s in state.stages]


def test_checkpoints_of_a_variant_that_failed_count(lab: Lab) -> None:
    outcome = lab.run("a: !pieces.Failing {at: 2}", more="max_failures: 0")
    [variant] = outcome.of("a")
    assert variant.status is Status.FAILED
    use = measure(lab.folder)
    assert variant.stored_bytes > 0
    # The manifest does not count itself.
    manifests = [path.stat().st_size for path in lab.folder.root.rglob(MANIFEST)]
    assert variant.stored_bytes == use.size() - sum(manifests)


def test_load_compares_a_component_with_its_manifest(lab: Lab) -> None:
    outcome = lab.run("a: !pieces.Walk {steps: 1}").fine()
    [variant] = outcome.of("a")
    path = lab.folder.checkpoint("a", variant.name)
    assert flambe.load(path, extensions=["pieces"]) is not None
    [state] = [each for each in path.iterdir() if each.name.startswith("state")]
    content = state.read_bytes()
    for damaged, message in (
        (content[:-1], "bytes instead of"),
        (content[:-1] + bytes([content[-1] ^ 1]), "is not what was written"),
        (None, "is missing"),
    ):
        state.unlink(missing_ok=True)
        if damaged is not None:
            state.write_bytes(damaged)
        with pytest.raises(StateError, match=message):
            flambe.load(path, extensions=["pieces"])
    state.write_bytes(content)
    assert flambe.load(path, extensions=["pieces"]) is not None
    # Without a manifest, nothing can be compared.
    (path.parent / MANIFEST).unlink()
    assert flambe.load(path, extensions=["pieces"]) is not None
