"""``flambe clean``: what is removed, what stays, and what a later ``--resume`` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flambe.cli import main
from flambe.experiment.storage.folder_lock import FolderLock
from flambe.progress import RunFolder, Status
from tests.experiment.lab import Lab

PIPELINE = """
train: !pieces.Curve {height: !g [0.1, 0.2, 0.4], steps: 2}
judge: !pieces.Fixed {value: !@ train.height, other: !@ train}
"""
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def cleaned(lab: Lab) -> Lab:
    """A lab with a run of which two variants were dropped, after one that was moved aside."""
    lab.run(PIPELINE, more="reduce: {train: 1}").fine()
    lab.run(force=True).fine()
    return lab


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["clean", *map(str, arguments)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def checkpoints(folder: RunFolder) -> dict[str, bool]:
    return {
        f"{variant.stage} {variant.choices['height']}": folder.checkpoint(
            variant.stage, variant.name
        ).exists()
        for variant in folder.read_variants().values()
        if variant.status.done
    }


def test_nothing_is_removed_without_a_yes(
    cleaned: Lab, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoints(cleaned.folder)
    assert before == {"train 0.1": True, "train 0.2": True, "train 0.4": True, "judge 0.4": True}
    code, out, _ = call(cleaned.folder.root, "--dry-run")
    assert code == 0
    assert "2 × checkpoints of variants that reduce dropped: --resume would run these again" in out
    assert "1 × runs that --force moved aside" in out
    header, train, judge, total = (line.split() for line in out.splitlines()[:4])
    assert header[:3] == ["stage", "checkpoints", "dropped"]
    assert (train[0], judge[0], total[0]) == ("train", "judge", "all")
    code, _, err = call(cleaned.folder.root)
    assert code == 2
    assert "--yes removes it without asking" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "no")
    assert call(cleaned.folder.root)[0] == 2
    assert checkpoints(cleaned.folder) == before
    assert len(list(cleaned.folder.root.parent.glob("output__*"))) == 2


def test_what_nothing_builds_on_is_removed_and_resume_runs_it_again(
    cleaned: Lab, call: Call
) -> None:
    document = json.loads(call(cleaned.folder.root, "--json")[1])
    assert [each["kind"] for each in document["removable"]] == ["dropped", "dropped", "aside"]
    assert all(each["bytes"] > 0 for each in document["removable"])
    code, out, _ = call(cleaned.folder.root, "--yes")
    assert code == 0
    assert "freed " in out
    assert checkpoints(cleaned.folder) == {
        "train 0.1": False,
        "train 0.2": False,
        "train 0.4": True,
        "judge 0.4": True,
    }
    assert [path.name for path in cleaned.folder.root.parent.glob("output__*")] == ["output__trial"]
    # Its figures and logs are there as before.
    variant = next(v for v in cleaned.folder.read_variants().values() if v.choices["height"] == 0.1)
    assert (cleaned.folder.variant("train", variant.name) / "metrics.jsonl").exists()
    assert "there is nothing to remove" in call(cleaned.folder.root, "--yes")[1]
    resumed = cleaned.run(resume=True).fine()
    assert sorted(status.value for status in resumed.statuses("train")) == [
        "finished",
        "finished",
        "reused",
    ]
    assert Status.REUSED in resumed.statuses("judge")


def test_results_of_earlier_configurations_and_chosen_kinds(lab: Lab, call: Call) -> None:
    lab.run(PIPELINE).fine()
    lab.run(PIPELINE.replace("0.1, ", ""), resume=True).fine()
    part = lab.folder.root / "train" / "height=9" / "checkpoint_000001"
    part.mkdir(parents=True)
    (part / "state.pt").write_bytes(b"x" * 2048)
    document = json.loads(call(lab.folder.root, "--json")[1])
    kinds = [(each["kind"], each["stage"]) for each in document["removable"]]
    assert sorted(kinds) == [("earlier", "judge"), ("earlier", "train"), ("part", "train")]
    assert call(lab.folder.root, "--only", "part", "--yes")[1].endswith("freed 2.0 KiB\n")
    assert not part.exists()
    assert len(json.loads(call(lab.folder.root, "--json")[1])["removable"]) == 2
    code, _, err = call(lab.folder.root, "--only", "droped")
    assert code == 2
    assert "did you mean 'dropped'?" in err


def test_a_run_in_progress_is_not_cleaned(cleaned: Lab, call: Call) -> None:
    with FolderLock(cleaned.folder.root, print):
        code, _, err = call(cleaned.folder.root, "--yes")
    assert code == 2
    assert "process" in err
    state = cleaned.folder.read_state()
    assert state is not None
    state.status, state.host = Status.RUNNING, "elsewhere"
    cleaned.folder.write_state(state)
    code, _, err = call(cleaned.folder.root, "--yes")
    assert code == 2
    assert "is in progress" in err
    assert all(checkpoints(cleaned.folder).values())
