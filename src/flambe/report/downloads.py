"""Files of a run: one, or many as an archive that is made while it is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from zipstream import ZipStream

CHUNK = 1 << 20
BINARY = "application/octet-stream"
LOGS = (".log", ".jsonl", ".json", ".yaml")


def one_file(path: Path) -> Response:
    """Return a file, as long as it is now, though it may grow or be removed meanwhile.

    Raises
    ------
    HTTPException
        404 if it is not there.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError
        stream = open(path, "rb")
    except OSError:
        raise HTTPException(404, "There is no such file in this run.") from None
    size = os.fstat(stream.fileno()).st_size
    headers = {**_named(path.name), "content-length": str(size)}
    return StreamingResponse(
        iterate_in_threadpool(_first(stream, size)), media_type=BINARY, headers=headers
    )


def _first(stream: BinaryIO, left: int) -> Iterator[bytes]:
    with stream:
        while left and (part := stream.read(min(CHUNK, left))):
            left -= len(part)
            yield part


def _named(name: str) -> dict[str, str]:
    """Return the header that makes a browser keep what is sent, under a name."""
    quoted = quote(name, safe="")
    plain = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
    return {"content-disposition": f"attachment; {plain}"}


def inside(root: Path, name: str) -> Path | None:
    """Return the path of a name below a folder, or None where it leads out of it."""
    if "\0" in name:
        return None
    base = root.resolve()
    try:
        path = (base / name).resolve()
    except (OSError, RuntimeError, ValueError):
        return None
    return path if path.is_relative_to(base) and path != base else None


def listing(root: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the files below a folder: name from there, name from the root, and bytes."""
    return [
        {"name": str(path.relative_to(folder)), "path": str(path.relative_to(root)), "size": size}
        for path, size in _files(folder, only_logs=False)
    ]


def archive(folder: Path, name: str, *, only_logs: bool) -> Response:
    """Return a ZIP archive of the files below a folder; nothing of it is kept here."""
    label = f"{name}-logs" if only_logs else name
    return StreamingResponse(
        iterate_in_threadpool(_zipped(folder, name, only_logs)),
        media_type="application/zip",
        headers=_named(f"{label}.zip"),
    )


def _zipped(folder: Path, name: str, only_logs: bool) -> Iterator[bytes]:
    # A run goes on, and removes checkpoints that it needs no more.
    gone: list[str] = []

    def parts(path: Path) -> Iterator[bytes]:
        try:
            with open(path, "rb") as stream:
                while part := stream.read(CHUNK):
                    yield part
        except OSError:
            gone.append(str(path.relative_to(folder)))

    stream = ZipStream()
    for path, _ in _files(folder, only_logs=only_logs):
        stream.add(parts(path), str(Path(name) / path.relative_to(folder)))
    if not stream:
        stream.add("There are no files yet.\n", f"{name}/empty.txt")
    yield from stream.all_files()
    if gone:
        told = "These files were removed while they were sent:\n" + "\n".join(gone) + "\n"
        stream.add(told, f"{name}/removed.txt")
    yield from stream.finalize()


def size_of(folder: Path, *, only_logs: bool) -> int:
    """Return the bytes of the files that an archive would hold."""
    return sum(size for _, size in _files(folder, only_logs=only_logs))


def _files(folder: Path, *, only_logs: bool) -> Iterator[tuple[Path, int]]:
    """Yield regular files and their bytes; links are not followed."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if only_logs and not (name.endswith(LOGS) and "checkpoint" not in path.parts):
                continue
            try:
                if path.is_symlink() or not path.is_file():
                    continue
                yield path, path.stat().st_size
            except OSError:  # it was removed meanwhile
                continue
