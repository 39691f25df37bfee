"""Workers import modules from where the driver does."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class _Settled(list[str]):
    """Folders to import from, to which Ray adds none.

    It would add the working folder, which the driver imports nothing from: a ``numpy.py`` in it
    would replace NumPy in the workers.
    """

    def extend(self, folders: Iterable[str]) -> None:
        """Add nothing."""


def leading_folders() -> list[str]:
    """Return the folders that this process imports from before its own library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    folders = []
    for entry in sys.path:
        folder = Path(os.path.abspath(entry or os.curdir))
        if folder == library or (folder.suffix == ".zip" and folder.parent == library.parent):
            break
        folders.append(str(folder))
    return folders


def job_config() -> Any:
    """Return the settings of a Ray job whose workers import from the same folders, in order."""
    from ray.job_config import JobConfig

    # A worker puts each in front of those before it.
    return JobConfig(_py_driver_sys_path=_Settled(reversed(leading_folders())))
