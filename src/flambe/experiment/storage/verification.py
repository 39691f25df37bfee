"""Check that a checkpoint of this host is what was written."""

from __future__ import annotations

import stat
from pathlib import Path

from flambe.errors import DamagedError
from flambe.experiment.storage.checkpoints import Checkpoints


def verify(checkpoint: Path) -> None:
    """Check that a checkpoint of this host is what was written; once, while it does not change.

    Raises
    ------
    DamagedError
        If it is not: the file is named.
    """
    state = [
        (str(file), status.st_ino, status.st_size, status.st_mtime_ns)
        for file in sorted(checkpoint.rglob("*"))
        if stat.S_ISREG((status := file.lstat()).st_mode)
    ]
    if _verified.get(str(checkpoint)) == state:
        return
    if text := Checkpoints("").damage(str(checkpoint)):
        raise DamagedError(f"a checkpoint is damaged: {text}")
    _verified[str(checkpoint)] = state


#: Checkpoint → its files, when it was verified: stages share ancestors, and processes stages.
_verified: dict[str, list[tuple[str, int, int, int]]] = {}
