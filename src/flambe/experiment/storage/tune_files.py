"""The file system of a run, as Ray Tune and Arrow take it: it works on any host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pyarrow.fs import FSSpecHandler, PyFileSystem

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Opener(Protocol):
    """What a file system is found with, on the host where it is used."""

    def files(self) -> AbstractFileSystem:
        """Return the file system."""


class _Handler(FSSpecHandler):  # type: ignore[misc]
    """Gives pyarrow the file system of a run; what travels between hosts is where to find it."""

    def __init__(self, opener: Opener) -> None:
        self.opener = opener

    @property
    def fs(self) -> AbstractFileSystem:
        return self.opener.files()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handler) and other.opener == self.opener

    def __hash__(self) -> int:
        return hash(self.opener)


def file_system(opener: Opener) -> PyFileSystem:
    """Return a file system that is opened where it is used."""
    return PyFileSystem(_Handler(opener))
