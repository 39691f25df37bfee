"""What was done on this host for a cluster: its setup commands, for one."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from flambe.remote.agent.files import boot_id, read_json, write_json


def _path(root: str, cluster: str) -> str:
    return os.path.join(root, "clusters", cluster, "marks.json")


def read(root: str, cluster: str) -> dict[str, Any]:
    """Return what was noted since this host was started: name → value."""
    if not cluster:
        return {}
    known = read_json(_path(root, cluster)) or {}
    return {k: v["value"] for k, v in known.items() if v.get("boot") in ("", boot_id())}


def write(root: str, cluster: str, name: str, value: Any, *, boot: bool = False) -> Any:
    """Note something; if ``boot``, until the host is started again."""
    known = read_json(_path(root, cluster)) or {}
    known[name] = {"value": value, "boot": boot_id() if boot else ""}
    write_json(_path(root, cluster), known)
    return {}


def forget(root: str, cluster: str) -> Any:
    """Forget all that was noted for a cluster."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(_path(root, cluster))
    return {}
