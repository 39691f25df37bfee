"""Files below the folder of a run, opened so that no name and no link leads out of it.

A name is resolved first: links that stay within the folder may be followed. What it resolves to is
then opened folder by folder, each relative to the one before, without following links. So a link
that is put in the way meanwhile is refused (CWE-367), which a check of the path alone does not do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flambe.progress import open_regular

DEEPEST = 100  # levels of folders that are listed
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A folder may be passed through that may not be listed, such as /home of mode 0711.
_PASS = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)


@dataclass(frozen=True)
class RunPath:
    """A file or folder of a run, or the folder of the run itself.

    Attributes
    ----------
    base
        The folder of the run, in which no component is a link.
    name
        Its name from there; empty for the folder of the run.
    """

    base: Path
    name: str = ""

    @classmethod
    def of(cls, root: Path) -> RunPath:
        """Return the folder of a run; links that lead to it are followed now, and never again."""
        return cls(root.resolve())

    @property
    def path(self) -> Path:
        """The path, to be shown; to open it, use the methods."""
        return self.base / self.name

    def below(self, name: str) -> RunPath | None:
        """Return what a name below this folder resolves to, or None if that is not in the run."""
        if "\0" in name:
            return None
        try:
            path = (self.path / name).resolve()
        except (OSError, RuntimeError, ValueError):
            return None
        if path == self.base or not path.is_relative_to(self.base):
            return None
        return RunPath(self.base, str(path.relative_to(self.base)))

    def open(self) -> BinaryIO:
        """Open this file to read it.

        Raises
        ------
        OSError
            If it is not a regular file, or a link is in its way.
        """
        path = self.path
        with _folder(path.parent) as folder:
            return open_regular(path.name, dir_fd=folder)

    def read(self, most: int) -> bytes:
        """Return the first bytes of this file; nothing where it cannot be read."""
        try:
            with self.open() as stream:
                return stream.read(most)
        except OSError:
            return b""

    def files(self) -> Iterator[tuple[RunPath, int]]:
        """Yield the regular files below this folder, and their bytes; links are not followed."""
        pending = [self]
        while pending:
            folder = pending.pop()
            names, folders = folder._entries()
            yield from names
            if len(Path(folder.name).parts) < DEEPEST:
                pending.extend(reversed(folders))

    def _entries(self) -> tuple[list[tuple[RunPath, int]], list[RunPath]]:
        """Return the regular files in this folder with their bytes, and the folders."""
        files, folders = [], []
        with contextlib.suppress(OSError), _folder(self.path, os.O_RDONLY) as descriptor:
            with os.scandir(descriptor) as iterator:
                entries = sorted(iterator, key=lambda entry: entry.name)
            for entry in entries:
                path = RunPath(self.base, os.path.join(self.name, entry.name))
                with contextlib.suppress(OSError):  # it was removed meanwhile
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        files.append((path, entry.stat(follow_symlinks=False).st_size))
        return files, folders


def printable(name: str) -> str:
    """Return a name that can be encoded as UTF-8: names of files may hold any bytes."""
    return name.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def _folder(path: Path, flags: int = _PASS) -> Iterator[int]:
    """Open an absolute path, one folder after another, none of them a link."""
    descriptor = os.open(path.anchor, _PASS)
    try:
        for depth, part in enumerate(path.parts[1:], 2):
            last = depth == len(path.parts)
            inner = os.open(part, _FOLDER | flags if last else _PASS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
