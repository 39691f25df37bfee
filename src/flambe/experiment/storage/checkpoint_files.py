"""What is read of each checkpoint of a run: on this host without Arrow.

A run where nothing has changed looks at a checkpoint of each variant, and so does ``flambe plan``:
importing Arrow takes longer than to read a thousand manifests (``benchmarks/lineage.py``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem


def list_folders(folder: str, files: FileSystem | None) -> list[str]:
    """Return the paths of the folders in a folder; none, if it does not exist.

    Parameters
    ----------
    folder
        The folder.
    files
        The file system; None for that of this host.
    """
    if files is None:
        try:
            with os.scandir(folder) as entries:
                return [f"{folder}/{entry.name}" for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []
    from pyarrow.fs import FileSelector, FileType

    infos = files.get_file_info(FileSelector(folder, allow_not_found=True))
    return [info.path for info in infos if info.type is FileType.Directory]


def files_below(folder: str, files: FileSystem) -> list[FileInfo]:
    """Return the files in a folder, and in those below; none, if it does not exist."""
    from pyarrow.fs import FileSelector, FileType

    selector = FileSelector(folder, recursive=True, allow_not_found=True)
    return [info for info in files.get_file_info(selector) if info.type is FileType.File]


def read_bytes(path: str, files: FileSystem | None) -> bytes:
    """Return what a file holds."""
    if files is None:
        with open(path, "rb") as local:
            return local.read()
    with files.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def file_sizes(paths: Sequence[str], files: FileSystem | None) -> list[int | None]:
    """Return the sizes of files; None for one that does not exist."""
    if files is not None:
        return [info.size for info in files.get_file_info(list(paths))]
    sizes: list[int | None] = []
    for path in paths:
        try:
            sizes.append(os.stat(path).st_size)
        except (FileNotFoundError, NotADirectoryError):
            sizes.append(None)
    return sizes
