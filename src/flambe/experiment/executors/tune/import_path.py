"""Lets workers import modules from the same folders as the driver."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from ray.job_config import JobConfig


class _FixedFolders(list[str]):
    """Folders to import from, which Ray cannot extend.

    It would add the working folder, which the driver does not import from: a ``numpy.py`` in it
    would replace NumPy in the workers. Shown by ``tests/experiment/test_import_path.py``.
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


def job_config() -> JobConfig:
    """Return the settings of a Ray job whose workers import from the same folders, in order."""
    # A worker puts each in front of those before it.
    return JobConfig(_py_driver_sys_path=_FixedFolders(reversed(leading_folders())))
