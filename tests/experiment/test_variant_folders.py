"""self.folder: of each variant alone, in its checkpoints, and there again when it goes on."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import flambe
from flambe.compile import Component
from tests.experiment.lab import Lab, Outcome

pytestmark = pytest.mark.integration


def files(outcome: Outcome, stage: str) -> list[list[str]]:
    """Return what the folder of each variant of a stage holds in the end."""
    found = []
    for variant in outcome.of(stage):
        folder = outcome.folder.variant(stage, variant.name) / "checkpoint" / "files"
        found.append(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
    return found


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    gc.collect()
    assert not list(folder.glob("flambe-*")), "something was left"


PIPELINE = """
keep: !pieces.Keeping {number: !g [1, 2], record: RECORD}
find: !pieces.Finding {other: !@ keep, where: !@ keep.folder, record: RECORD}
"""


def check(lab: Lab, outcome: Outcome) -> None:
    assert files(outcome, "keep") == [["deep/1.txt", "deep/2.txt", "made.txt"]] * 2
    assert files(outcome, "find") == [[], []]
    own = [line for line in lab.records() if "finds" in line]
    steps = ["['made.txt']", "['deep', 'deep/1.txt', 'deep/link1', 'made.txt']"]
    assert sorted(own) == sorted(f"{n} finds {step}" for n in (1, 2) for step in steps)
    read = [line for line in lab.records() if line.startswith("of")]
    assert sorted(read) == [
        f"of {n}: ['deep/1.txt', 'deep/2.txt', 'made.txt'] True" for n in (1, 2)
    ]
    # What the next stage changed in its copy is not changed here.
    (first, _) = outcome.of("keep")
    folder = outcome.folder.variant("keep", first.name) / "checkpoint"
    assert (folder / "files" / "deep" / "1.txt").read_text() == "1"
    loaded = flambe.load(folder / "checkpoint.flambe")
    assert loaded.done == 2
    assert (loaded.folder / "deep" / "2.txt").read_text() == "1"
    assert not Path("made.txt").exists()


def test_each_variant_has_a_folder_and_the_next_stage_a_copy(lab: Lab) -> None:
    check(lab, lab.run(PIPELINE).fine())


def test_a_variant_that_goes_on_finds_what_was_there_at_its_checkpoint(lab: Lab) -> None:
    pipeline = "keep: !pieces.Keeping {number: 1, record: RECORD, fail_after: 1}"
    lab.run(pipeline, more="max_failures: 0").raised()
    outcome = lab.run(pipeline, resume=True).fine()
    assert lab.records()[-1] == "1 finds ['deep', 'deep/1.txt', 'made.txt']"
    assert files(outcome, "keep") == [["deep/1.txt", "deep/2.txt", "made.txt"]]


def test_paths_of_the_configuration_start_where_flambe_was_started(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = lab.root / "start"
    start.mkdir()
    (start / "data.txt").write_text("the data")
    monkeypatch.chdir(start)
    lab.run("keep: !pieces.Keeping {number: !g [1, 2], record: RECORD, source: data.txt}").fine()
    assert lab.records().count("1 reads the data") == lab.records().count("2 reads the data") == 2
    assert os.listdir(start) == ["data.txt"]


class Named(Component):
    """Has an attribute of that name."""

    def __init__(self, folder: str) -> None:
        self.folder = folder


class Bare(Component):
    """Has none."""


def test_a_component_may_have_a_folder_of_another_kind() -> None:
    assert Named("x").folder == "x"


def test_without_an_experiment_it_is_the_folder_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Bare().folder == tmp_path


@pytest.mark.integration
@pytest.mark.usefixtures("one_ray")
def test_each_variant_has_a_folder_by_tune(lab: Lab) -> None:
    check(lab, lab.run(PIPELINE, executor=None).fine())
