"""Unpacking an archive from an untrusted source.

Python's own ``filter="data"`` has been bypassed more than once (CVE-2025-4517: links overwrote a
file outside of the folder), and bounds neither sizes nor counts. What :func:`flambe.save`
packs is regular files and folders: only those are unpacked, and only so much.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flambe.errors import StateError

MAX_MEMBERS = 20_000
MAX_DEPTH = 50  # folders in one another
MAX_NAME = 4_096  # characters of the path of a member
# An archive may unpack to this many bytes, and this many times its own size: weights hardly shrink.
FREE_BYTES = 256 * 1024**2
MAX_RATIO = 20
_GZIP = b"\x1f\x8b"


def unpack(path: str, folder: Path, *, bounded: bool = True) -> None:
    """Unpack a ``.tar.gz`` or ``.tar`` into a folder that exists.

    Parameters
    ----------
    path
        The archive.
    folder
        Where its files go; nothing is written outside.
    bounded
        Whether the size of what comes out is bounded, by the size of the archive.

    Raises
    ------
    StateError
        If it is damaged, too large, or holds more than regular files and folders.
    """
    limit = FREE_BYTES + MAX_RATIO * os.path.getsize(path) if bounded else None
    try:
        # As a stream: a header, too, is read from what is counted.
        with (
            _opened(path) as stream,
            tarfile.open(fileobj=_Counted(stream, limit), mode="r|") as archive,
        ):
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise StateError(f"it holds more than {MAX_MEMBERS:,} files")
                _unpack(archive, member, folder)
    except StateError as error:
        raise StateError(f"cannot unpack {path}: {error}") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise StateError(f"cannot unpack {path}: {error}") from None


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    if (
        not (plain or member.isdir())
        or member.name.startswith("/")
        or ".." in parts
        or not member.name.isprintable()
    ):
        raise StateError(f"{member.name[:200]!r} is not a regular file in its folder")
    if len(parts) > MAX_DEPTH or len(member.name) > MAX_NAME:
        raise StateError(f"{member.name[:80]!r} … is nested deeper than {MAX_DEPTH} folders")
    target = folder.joinpath(*parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None
    with open(target, "xb") as file:  # flambe's archives name each file once
        shutil.copyfileobj(content, file)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with open(path, "rb") as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if zipped else file


class _Counted(io.BufferedIOBase):
    """A stream that ends with an error when more is read from it than it may give."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int | None) -> None:
        self.stream = stream
        self.limit = limit
        self.given = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = self.stream.read(-1 if size is None else size)
        self.given += len(data)
        if self.limit is not None and self.given > self.limit:
            raise StateError(
                f"it unpacks to more than {self.limit // 1024**2:,} MiB\n"
                "  if you trust it:   flambe.load(path, trust=True)"
            )
        return data
