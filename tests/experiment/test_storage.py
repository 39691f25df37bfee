"""Checkpoints on the host that has the folder of the run itself."""

from __future__ import annotations

from pathlib import Path

from flambe.experiment.storage.checkpoint_storage import Storage


def test_a_checkpoint_takes_the_place_of_what_an_attempt_left(tmp_path: Path) -> None:
    place = Storage(str(tmp_path))
    for name in ("nothing", "a_part"):
        checkpoint = tmp_path / name
        if name == "a_part":
            (checkpoint / "below").mkdir(parents=True)
            (checkpoint / "below/other").write_text("left")
            (checkpoint / "file").write_text("left")
            (tmp_path / "linked").hardlink_to(checkpoint / "file")
        with place.writing(str(checkpoint)) as folder:
            (folder / "file").write_text("said")
        assert [path.name for path in checkpoint.rglob("*")] == ["file"]
        assert (checkpoint / "file").read_text() == "said"
    assert (tmp_path / "linked").read_text() == "left"
