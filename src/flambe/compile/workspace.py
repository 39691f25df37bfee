"""The folder of its own that a variant has: ``self.folder`` of its components."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from flambe._files import locked_folder

#: The name of the folder in a checkpoint, beside the component.
FILES = "files"
_PREFIX = "flambe-files-"
_ATTRIBUTE = "_flambe_workspace"


class Workspace:
    """A folder that is created at first use.

    Parameters
    ----------
    make
        Makes it.
    """

    def __init__(self, make: Callable[[], Path]) -> None:
        self._make = make
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        if self._path is None:
            self._path = self._make()
        return self._path

    @property
    def created(self) -> Path | None:
        """The folder, if it was created."""
        return self._path


class _Current:
    workspace: Workspace | None = None


@contextlib.contextmanager
def using(workspace: Workspace) -> Iterator[None]:
    """Give this folder to the components that are made, and to those that have none."""
    earlier, _Current.workspace = _Current.workspace, workspace
    try:
        yield
    finally:
        _Current.workspace = earlier


def give(component: object) -> None:
    """Give a component that is being built the current folder, permanently."""
    if _Current.workspace is not None:
        vars(component).setdefault(_ATTRIBUTE, _Current.workspace)


def of(component: object) -> Workspace | None:
    """Return the folder of a component, or None if it is run by no experiment."""
    return vars(component).get(_ATTRIBUTE) or _Current.workspace


class OwnFolder:
    """``self.folder``; a component may have an attribute of this name all the same."""

    def __get__(self, component: object, kind: object = None) -> object:
        if component is None:
            return self
        workspace = of(component)
        return Path.cwd() if workspace is None else workspace.path


def of_saved(component: Path) -> Workspace:
    """Return the folder of a component that is loaded: a copy, for as long as there is one.

    Parameters
    ----------
    component
        The folder of the component, or of one below it.
    """
    stack = contextlib.ExitStack()

    def make() -> Path:
        folder = stack.enter_context(working_folder()) / "own"
        folder.mkdir()
        for parent in (component, *component.parents):
            if parent.name == "checkpoint.flambe":
                copy_files(parent.parent / FILES, folder)
        return folder

    workspace = Workspace(make)
    weakref.finalize(workspace, stack.close)
    return workspace


# -- on this host -------------------------------------------------------------------------------


def copy_files(
    source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2
) -> None:
    """Copy files and folders; links are followed, and sockets and their like left out."""

    def special(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not _is_plain(os.path.join(folder, name))]

    if source.is_dir():
        shutil.copytree(source, target, ignore=special, copy_function=copy, dirs_exist_ok=True)


def _is_plain(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:  # a link to nothing
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def working_folder() -> AbstractContextManager[Path]:
    """Create a folder for the folders of a process; it disappears with it, however it ends."""
    return locked_folder(Path(tempfile.gettempdir()), _PREFIX, _remove)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
