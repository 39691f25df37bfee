"""Locks of a cluster, on its orchestrator: each names its holder, and a dead holder's expires."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from flambe.remote.agent.files import boot_id, private_folder, read_json, write_json
from flambe.remote.agent.protocol import Lock, LockAnswer, LockRequest, UnlockRequest


def _paths(root: str) -> list[str]:
    """Return the file of the locks, and its copy."""
    return [os.path.join(root, name) for name in ("locks.json", "locks.json.last")]


def _write(root: str, held: dict[str, Lock]) -> None:
    for path in reversed(_paths(root)):
        write_json(path, {name: lock.to_json() for name, lock in held.items()})


@contextlib.contextmanager
def _exclusive(root: str) -> Iterator[None]:
    private_folder(root)
    descriptor = os.open(os.path.join(root, "locks.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(root: str) -> dict[str, Lock]:
    """Return the locks that are held, by name."""
    now, boot = time.time(), boot_id()
    files = (read_json(path) for path in _paths(root))
    entries = next((content for content in files if isinstance(content, dict)), {})
    locks = {str(name): Lock.from_json(entry) for name, entry in entries.items()}
    return {k: lock for k, lock in locks.items() if lock.until > now and lock.boot == boot}


def acquire(root: str, request: LockRequest) -> LockAnswer:
    """Take a lock, or renew it with the same token; the answer names its holder."""
    with _exclusive(root):
        held = read(root)
        lock = held.get(request.name)
        if lock is not None and lock.token != request.token:
            return LockAnswer(False, lock.holder, lock.since, lock.token)
        now = time.time()
        since = lock.since if lock else now
        until = now + request.seconds
        held[request.name] = Lock(request.token, request.holder, since, until, boot_id())
        _write(root, held)
        return LockAnswer(True, request.holder, since, request.token)


def release(root: str, request: UnlockRequest) -> bool:
    """Give a lock back, if it is held with this token; return whether it was."""
    with _exclusive(root):
        held = read(root)
        lock = held.get(request.name)
        if lock is None or lock.token != request.token:
            return False
        del held[request.name]
        _write(root, held)
        return True
