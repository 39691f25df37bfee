"""Mark a run as interrupted that could not do so itself: it was killed, or its host went down.

At the end of a run, its supervisor calls this module with the folder as argument.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.progress import RunFolder, Status, change_line, end_last_line


def mark_interrupted(folder: RunFolder) -> None:
    """Mark a run and its variants as interrupted that are running by their state."""
    state = folder.read_state()
    if state is None or state.status is not Status.RUNNING:
        return
    Checkpoints(str(folder.root)).remove_parts(folder.read_variants().values())
    end_last_line(folder.variants)
    with open(folder.variants, "a", encoding="utf-8") as lines:
        for entry in folder.read_variants().values():
            if entry.status is Status.RUNNING:
                lines.write(change_line({"id": entry.id, "status": Status.INTERRUPTED}))
    entries = list(folder.read_variants().values())
    for stage in state.stages:
        stage.counts = dict(Counter(e.status.value for e in entries if e.stage == stage.name))
        if stage.status is Status.RUNNING:
            stage.status, stage.ended = Status.INTERRUPTED, state.updated
    state.status, state.ended = Status.INTERRUPTED, state.updated or time.time()
    state.error = "it was killed, or its host went down"
    folder.write_state(state)


if __name__ == "__main__":
    mark_interrupted(RunFolder(Path(sys.argv[1])))
