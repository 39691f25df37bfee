"""Files of a run: one, or many as an archive that is made while it is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.concurrency import iterate_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse
from zipstream import ZipStream

CHUNK = 1 << 20
LOGS = (".log", ".jsonl", ".json", ".yaml")


def one_file(root: Path, name: str) -> Response:
    """Return a file below the folder of the run, whatever else the name tries.

    Raises
    ------
    HTTPException
        404 if it is not there, or leads out of the folder.
    """
    path = inside(root, name)
    if path is None or not path.is_file():
        raise HTTPException(404, "There is no such file in this run.")
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


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
    stream = ZipStream()
    for path, _ in _files(folder, only_logs=only_logs):
        stream.add(_parts(path), str(Path(name) / path.relative_to(folder)))
    if not stream:
        stream.add(b"There are no files yet.\n", f"{name}/empty.txt")
    label = f"{name}-logs" if only_logs else name
    safe = "".join(c if c.isalnum() or c in "-_.," else "_" for c in label)
    return StreamingResponse(
        iterate_in_threadpool(iter(stream)),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{safe}.zip"'},
    )


def _parts(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as stream:
            while part := stream.read(CHUNK):
                yield part
    except OSError:  # a run goes on, and removes checkpoints that it needs no more
        return


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
