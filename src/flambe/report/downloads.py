"""Files of a run: one, or many as an archive that is made while it is sent."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from zipstream import ZipStream

from flambe.report.files import RunPath, printable

CHUNK = 1 << 20
BINARY = "application/octet-stream"
LOGS = (".log", ".jsonl", ".json", ".yaml")
MOST_LISTED = 2_000  # files that the page of a variant names


def one_file(path: RunPath) -> Response:
    """Return a file, as long as it is now, though it may grow or be removed meanwhile.

    Raises
    ------
    HTTPException
        404 if it is not there.
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


def _first(stream: BinaryIO, left: int) -> Iterator[bytes]:
    with stream:
        while left and (part := stream.read(min(CHUNK, left))):
            left -= len(part)
            yield part


def _named(name: str) -> dict[str, str]:
    """Return the header that makes a browser keep what is sent, under a name."""
    quoted = quote(printable(name), safe="")
    plain = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
    return {"content-disposition": f"attachment; {plain}"}


def listing(folder: RunPath) -> list[dict[str, Any]]:
    """Return files below a folder: name from there, name from the folder of the run, and bytes.

    The name from the folder of the run is empty where no address can hold it.
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
    """Return a ZIP archive of the files below a folder; nothing of it is kept here."""
    label = f"{name}-logs" if only_logs else name
    return StreamingResponse(
        iterate_in_threadpool(_zipped(folder, printable(name), only_logs)),
        media_type="application/zip",
        headers=_named(f"{label}.zip"),
    )


def _zipped(folder: RunPath, name: str, only_logs: bool) -> Iterator[bytes]:
    # A run goes on, and removes checkpoints that it needs no more.
    gone: list[str] = []

    def parts(path: RunPath) -> Iterator[bytes]:
        try:
            with path.open() as stream:
                while part := stream.read(CHUNK):
                    yield part
        except OSError:
            gone.append(printable(_name_in(folder, path)))

    stream = ZipStream()
    for path, _ in folder.files():
        if not only_logs or _is_log(path):
            stream.add(parts(path), f"{name}/{printable(_name_in(folder, path))}")
    if not stream:
        stream.add("There are no files yet.\n", f"{name}/empty.txt")
    yield from stream.all_files()
    if gone:
        told = "These files were removed while they were sent:\n" + "\n".join(gone) + "\n"
        stream.add(told, f"{name}/removed.txt")
    yield from stream.finalize()


def _is_log(path: RunPath) -> bool:
    return path.name.endswith(LOGS) and "checkpoint" not in PurePath(path.name).parts


def sizes(folder: RunPath) -> tuple[int, int]:
    """Return the bytes of the files of an archive: of everything, and of logs only."""
    everything = logs = 0
    for path, size in folder.files():
        everything += size
        logs += size if _is_log(path) else 0
    return everything, logs
