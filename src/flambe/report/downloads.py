"""Downloads of a run: one file, or many as an archive that is built while it is sent."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from zipstream import ZipStream

from flambe.report.files import RunPath, printable
from flambe.report.payloads import FileEntry

CHUNK = 1 << 20
BINARY = "application/octet-stream"
LOGS = (".log", ".jsonl", ".json", ".yaml")
MOST_LISTED = 2_000  # files on the page of a variant


def one_file(path: RunPath) -> Response:
    """Return a file with its present size, though it may grow or be removed meanwhile.

    Raises
    ------
    HTTPException
        404 if it does not exist.
    """
    try:
        stream = path.open()
    except OSError:
        raise HTTPException(404, "There is no such file in this run.") from None
    size = os.fstat(stream.fileno()).st_size
    headers = {**_named(path.path.name), "content-length": str(size)}
    return StreamingResponse(
        iterate_in_threadpool(_first(stream, size)), media_type=BINARY, headers=headers
    )


def _first(stream: BinaryIO, remaining: int) -> Iterator[bytes]:
    with stream:
        while remaining and (part := stream.read(min(CHUNK, remaining))):
            remaining -= len(part)
            yield part


def _named(name: str) -> dict[str, str]:
    """Return the header that makes a browser save the answer under a name."""
    quoted = quote(printable(name), safe="")
    plain = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
    return {"content-disposition": f"attachment; {plain}"}


def listing(folder: RunPath) -> list[FileEntry]:
    """Return files below a folder: the name from there, the path from the run, and the size.

    The path is empty where no URL can hold it.
    """
    return [
        {
            "name": printable(_name_in(folder, path)),
            "path": path.name if printable(path.name) == path.name else "",
            "size": size,
        }
        for path, size in itertools.islice(folder.files(), MOST_LISTED)
    ]


def _name_in(folder: RunPath, path: RunPath) -> str:
    return os.path.relpath(path.name, folder.name or ".")


def archive(folder: RunPath, name: str, *, only_logs: bool) -> Response:
    """Return a ZIP archive of the files below a folder; it is not stored here."""
    label = f"{name}-logs" if only_logs else name
    return StreamingResponse(
        iterate_in_threadpool(_zipped(folder, printable(name), only_logs)),
        media_type="application/zip",
        headers=_named(f"{label}.zip"),
    )


def _zipped(folder: RunPath, name: str, only_logs: bool) -> Iterator[bytes]:
    # A run in progress removes checkpoints that it no longer needs.
    removed: list[str] = []

    def parts(path: RunPath) -> Iterator[bytes]:
        try:
            with path.open() as stream:
                while part := stream.read(CHUNK):
                    yield part
        except OSError:
            removed.append(printable(_name_in(folder, path)))

    stream = ZipStream()
    for path, _ in folder.files():
        if not only_logs or _is_log(path):
            stream.add(parts(path), f"{name}/{printable(_name_in(folder, path))}")
    if not stream:
        stream.add("There are no files yet.\n", f"{name}/empty.txt")
    yield from stream.all_files()
    if removed:
        text = "These files were removed while they were sent:\n" + "\n".join(removed) + "\n"
        stream.add(text, f"{name}/removed.txt")
    yield from stream.finalize()


def _is_log(path: RunPath) -> bool:
    return path.name.endswith(LOGS) and "checkpoint" not in PurePath(path.name).parts


def sizes(folder: RunPath) -> tuple[int, int]:
    """Return the sizes of archives in bytes: of everything, and of logs only."""
    everything = logs = 0
    for path, size in folder.files():
        everything += size
        logs += size if _is_log(path) else 0
    return everything, logs
