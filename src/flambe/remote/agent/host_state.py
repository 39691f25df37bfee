"""What clients noted on this host for a cluster: that its setup commands ran, for example."""

from __future__ import annotations

import contextlib
import os

from flambe.remote.agent.files import boot_id, read_json, write_json
from flambe.remote.agent.protocol import ForgetRequest, MarkRequest


def _path(root: str, cluster: str) -> str:
    return os.path.join(root, "clusters", cluster, "marks.json")


def _read_file(root: str, cluster: str) -> dict[str, dict[str, object]]:
    """Return all that was ever noted: name → ``value``, and the ``boot`` that it is valid for."""
    marks = read_json(_path(root, cluster))
    if not isinstance(marks, dict):
        return {}
    return {k: mark for k, mark in marks.items() if isinstance(mark, dict) and "value" in mark}


def read(root: str, cluster: str) -> dict[str, object]:
    """Return what is noted: name → value, without what counted for an earlier boot."""
    if not cluster:
        return {}
    marks = _read_file(root, cluster)
    return {k: mark["value"] for k, mark in marks.items() if mark.get("boot") in ("", boot_id())}


def write(root: str, request: MarkRequest) -> None:
    """Note something."""
    marks = _read_file(root, request.cluster)
    marks[request.name] = {"value": request.value, "boot": boot_id() if request.boot else ""}
    write_json(_path(root, request.cluster), marks)


def forget(root: str, request: ForgetRequest) -> None:
    """Forget all that was noted for a cluster."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(_path(root, request.cluster))
