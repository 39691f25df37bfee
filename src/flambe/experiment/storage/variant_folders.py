"""The folders of variants on the host where they run; checkpoints hold what is in them.

Each is below a folder that this process has locked, and is removed however the process ends.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

from flambe.compile.state.file_writer import FileWriter
from flambe.compile.workspace import FILES, Workspace, copy_files, working_folder


class VariantFolders:
    """The folders that one variant has on this host: its own, and copies of its ancestors'."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._base: Path | None = None
        self._ancestors: dict[str, Workspace] = {}
        self.own = Workspace(lambda: self._create("own"))

    def of_ancestor(self, stage: str, checkpoint: Callable[[], Path]) -> Workspace:
        """Return the folder of an ancestor: a copy, for its checkpoint must stay as it is."""

        def make() -> Path:
            folder = self._create(f"of-{stage}")
            copy_files(checkpoint() / FILES, folder)
            return folder

        if stage not in self._ancestors:
            self._ancestors[stage] = Workspace(make)
        return self._ancestors[stage]

    def save(self, checkpoint: FileWriter) -> None:
        """Copy what is in the folder of the variant into a checkpoint."""
        if self.own.created is not None and any(self.own.created.iterdir()):
            copy_files(self.own.created, checkpoint.root / FILES, checkpoint.copy)

    def restore(self, checkpoint: Path) -> None:
        """Restore what was in the folder at a checkpoint."""
        if self.own.created is not None:
            for entry in self.own.created.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        if (checkpoint / FILES).is_dir():
            copy_files(checkpoint / FILES, self.own.path)

    def close(self) -> None:
        """Remove them."""
        self._stack.close()

    def _create(self, name: str) -> Path:
        if self._base is None:
            self._base = self._stack.enter_context(working_folder())
        folder = self._base / name
        folder.mkdir()
        return folder
