"""Files that are written once, and known by their sizes and digests when they are.

Nothing is collected in memory, and no file is read again: a digest is made of what passes by. For a
large block, another thread does that while this one writes: both leave the interpreter to others
meanwhile.

SHA-256 is what processors of today compute by themselves (1.6 GB/s, on one that does; BLAKE2b
0.7 GB/s; ``benchmarks/checkpoints.py``), and pickles are signed by it already.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

_METHOD = "sha256"
_LARGE = 1 << 20  # bytes: a smaller block is not worth a thread
CHUNK = 1 << 20


@dataclass(frozen=True)
class FileEntry:
    """What was written into a file.

    Attributes
    ----------
    size
        Bytes.
    digest
        The method, a colon and the digest: ``sha256:…``.
    """

    size: int
    digest: str

    @property
    def method(self) -> str:
        """The method."""
        return self.digest.partition(":")[0]

    @property
    def hexadecimal(self) -> str:
        """The digest alone."""
        return self.digest.partition(":")[2]


class FileWriter:
    """Writes the files of a folder.

    Parameters
    ----------
    root
        The folder; folders in it are made as they are needed.

    Attributes
    ----------
    entries
        Path below the folder → what was written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.entries: dict[str, FileEntry] = {}
        self._prefix = ""

    def below(self, name: str) -> FileWriter:
        """Return a writer of a folder in this one; what it writes is an entry of this one too."""
        writer = FileWriter(self.root / name)
        writer.entries, writer._prefix = self.entries, f"{self._prefix}{name}/"
        return writer

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file to be written from its start to its end.

        Raises
        ------
        OSError
            If a disk refuses it, whatever the one who writes makes of that: torch and pickle raise
            errors of their own (test_a_full_disk_is_told_from_a_state_that_cannot_be_saved).
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / name, "xb") as file, _Digesting(file) as stream:
            try:
                yield cast("IO[bytes]", stream)
            except Exception:
                if stream.refusal is not None:
                    raise stream.refusal from None
                raise
            entry = stream.entry()
        self.entries[self._prefix + name] = entry

    def entry(self, name: str) -> FileEntry:
        """Return what was written into a file."""
        return self.entries[self._prefix + name]

    def write(self, name: str, text: str) -> None:
        """Write a small file, as UTF-8."""
        with self.open(name) as stream:
            stream.write(text.encode("utf-8"))

    def copy(self, source: str, target: str) -> None:
        """Copy a file to a path in the folder, with its mode and times: for ``shutil.copytree``."""
        name = os.path.relpath(target, self.root)
        with open(source, "rb") as original, self.open(name) as stream:
            shutil.copyfileobj(original, stream, CHUNK)
        shutil.copystat(source, target)


class _Digesting(io.BufferedIOBase):
    """Passes on what is written to it, and makes a digest of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.new(_METHOD)
        self._size = 0
        self._pool: ThreadPoolExecutor | None = None
        #: What the disk refused.
        self.refusal: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        try:
            if len(view) < _LARGE:
                self._hash.update(view)
                self._file.write(view)
            else:
                self._write_large(view)
        except OSError as error:
            self.refusal = error
            raise
        self._size += len(view)
        return len(view)

    def _write_large(self, view: memoryview) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="flambe-digest")
        digested = self._pool.submit(self._hash.update, view)
        try:
            self._file.write(view)
        finally:
            digested.result()  # until then, the memory is in use

    def entry(self) -> FileEntry:
        """Return what was written so far."""
        return FileEntry(self._size, f"{_METHOD}:{self._hash.hexdigest()}")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        super().close()


def digest_of(stream: IO[bytes], method: str = _METHOD) -> FileEntry:
    """Read a stream to its end; return its size and digest.

    Raises
    ------
    ValueError
        If this version of flambe does not know the method.
    """
    if method != _METHOD:
        raise ValueError(f"{method[:40]!r} is no known digest")
    hashed, size, buffer = hashlib.new(method), 0, bytearray(CHUNK)
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        hashed.update(memoryview(buffer)[:count])
        size += count
    return FileEntry(size, f"{method}:{hashed.hexdigest()}")
