"""Leases: a host is needed, though it may have little to do just now.

``hosts/<host>/lease-<name>.json`` has the end of a lease, by the host's boot clock, which is never
set, and by the time of day. The reaper (:mod:`flambe.remote.agent.reaper.reaper`) does not end a
host with a lease.
"""

from __future__ import annotations

import contextlib
import os
import time

from flambe.remote.agent.files import boot_id, boot_seconds, private_folder, write_json
from flambe.remote.agent.protocol import LeaseRequest


def take(root: str, request: LeaseRequest) -> None:
    """Take a lease, or renew it."""
    private_folder(root)
    end, clock = time.time() + request.seconds, boot_seconds() + request.seconds
    write_json(_path(root, request.name), {"until": end, "clock": clock, "boot": boot_id()})


def give_back(root: str, name: str) -> None:
    """End a lease."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(_path(root, name))


def _path(root: str, name: str) -> str:
    return os.path.join(root, f"lease-{name}.json")
