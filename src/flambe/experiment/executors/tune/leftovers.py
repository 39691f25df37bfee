"""What Ray Tune leaves in the folder of a stage; flambe resumes from its own checkpoints."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flambe.experiment.storage.checkpoint_files import files_below
from flambe.experiment.storage.checkpoints import Checkpoints

# What Tune leaves beside the variants of a stage, and in their folders.
_PATTERNS = (
    "*.pkl",
    "*/error.pkl",
    "*/error.txt",
    "experiment_state-*.json",
    "searcher-state-*",
    ".validate_storage*",
    "basic-variant-state-*",
    "search_gen_state-*",
)


def remove_leftovers(checkpoints: Checkpoints, stage: str) -> None:
    """Remove what Tune left in a stage of a run."""
    folder = f"{checkpoints.root}/{stage}"
    for info in files_below(folder, checkpoints.files):
        name = Path(info.path).relative_to(folder)
        # Patterns of one level do not match names of another.
        if any(len(name.parts) == p.count("/") + 1 and name.match(p) for p in _PATTERNS):
            with contextlib.suppress(FileNotFoundError):
                checkpoints.files.delete_file(info.path)
