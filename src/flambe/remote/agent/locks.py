"""Locks of a cluster, on its orchestrator: each names its holder, and a dead holder's expires."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

from flambe.remote.agent.files import boot_id, private_folder, read_json, write_json


def _paths(root: str) -> list[str]:
    """Return the file of the locks, and the one with the same once more."""
    return [os.path.join(root, name) for name in ("locks.json", "locks.json.last")]


def _write(root: str, held: dict[str, Any]) -> None:
    for path in reversed(_paths(root)):
        write_json(path, held)


@contextlib.contextmanager
def _exclusive(root: str) -> Iterator[None]:
    private_folder(root)
    descriptor = os.open(os.path.join(root, "locks.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(root: str) -> dict[str, Any]:
    """Return the locks that are held: name → holder."""
    now, boot = time.time(), boot_id()
    files = (read_json(path) for path in _paths(root))
    held = next((found for found in files if isinstance(found, dict)), {})
    return {k: v for k, v in held.items() if v["until"] > now and v["boot"] == boot}


def acquire(root: str, name: str, token: str, holder: dict[str, Any], seconds: float) -> Any:
    """Take a lock, or renew it with the same token; return its holder."""
    with _exclusive(root):
        held = read(root)
        now = held.get(name)
        if now is not None and now["token"] != token:
            return {"taken": False, **{k: now[k] for k in ("holder", "since", "token")}}
        since = now["since"] if now else time.time()
        until = time.time() + seconds
        entry = {"token": token, "holder": holder, "since": since, "until": until}
        held[name] = dict(entry, boot=boot_id())
        _write(root, held)
        return {"taken": True, "holder": holder, "since": since}


def release(root: str, name: str, token: str) -> Any:
    """Give a lock back, if it is held with this token."""
    with _exclusive(root):
        held = read(root)
        mine = name in held and held[name]["token"] == token
        if mine:
            del held[name]
            _write(root, held)
        return {"released": mine}
