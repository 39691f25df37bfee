"""How much room a run takes, and what each part of it is for."""

from __future__ import annotations

import shutil
from pathlib import Path

from flambe.experiment.storage.disk_use import Purpose, measure
from tests.experiment.lab import Lab

PIPELINE = """
train: !pieces.Walk {steps: 2, rate: !g [1.0, 2.0, 3.0]}
more: !pieces.Walk {steps: 1, start: !@ train}
"""


def size_of(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def test_the_size_of_a_run_is_known_by_stage_and_by_purpose(lab: Lab) -> None:
    outcome = lab.run(PIPELINE, more="reduce: {train: 1}").fine()
    use = measure(lab.folder)
    dropped = [v for v in outcome.of("train") if not v.kept]
    assert len(dropped) == 2
    folders = {v.name: lab.folder.variant("train", v.name) for v in outcome.of("train")}
    sizes = {name: size_of(folder / "checkpoint") for name, folder in folders.items()}
    assert use.size("train") == sum(sizes.values())
    assert use.size("train", Purpose.DROPPED) == sum(sizes[v.name] for v in dropped) > 0
    assert use.size("more", Purpose.DROPPED) == 0 < use.size("more", Purpose.KEPT)
    assert use.size(purpose=Purpose.EARLIER) == use.size(purpose=Purpose.PART) == 0
    assert use.total == size_of(lab.folder.root)
    assert set(use.other) == {"", "train", "more"}


def test_results_that_no_longer_belong_are_told_from_those_that_do(lab: Lab) -> None:
    lab.run(PIPELINE).fine()
    lab.run(PIPELINE.replace("3.0", "4.0"), resume=True).fine()
    earlier = {c.variant for c in measure(lab.folder).checkpoints if c.purpose is Purpose.EARLIER}
    assert len(earlier) == 2  # rate 3, and what was built on it
    assert all("rate=3" in name for name in earlier)
    lab.run(resume=["train"]).fine()
    (aside,) = (lab.folder.root / "earlier").iterdir()
    use = measure(lab.folder)
    moved = [c for c in use.checkpoints if c.path.startswith(str(aside))]
    assert {c.stage for c in moved} == {"more"}
    assert all(c.purpose is Purpose.EARLIER for c in moved)
    assert use.total == size_of(lab.folder.root)


def test_parts_and_links_are_counted_as_what_they_are(lab: Lab) -> None:
    outcome = lab.run("train: !pieces.Walk {steps: 2}").fine()
    folder = lab.folder.variant("train", outcome.of("train")[0].name)
    before = measure(lab.folder)
    shutil.copytree(folder / "checkpoint", folder / "checkpoint_again", copy_function=_link)
    (folder / "checkpoint_again" / "manifest.json").unlink()
    (folder / ".saving-abc").mkdir()
    (folder / ".saving-abc" / "part").write_bytes(b"123")
    use = measure(lab.folder)
    # Two links to a file take the room of one.
    assert use.total == before.total + 3
    parts = {Path(c.path).name: c.size for c in use.checkpoints if c.purpose is Purpose.PART}
    assert parts == {"checkpoint_again": 0, ".saving-abc": 3}


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
