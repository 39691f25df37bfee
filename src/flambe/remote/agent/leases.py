"""Leases: what says that a host is needed, though it may have little to do just now.

``hosts/<host>/lease-<name>.json`` holds until when, by a clock of the host itself that nobody sets
and that begins at its boot, and by the time of day. What ends idle hosts
(:mod:`flambe.remote.agent.reaper.reaper`) lets those with a lease be.
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
    """Give a lease back."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(_path(root, name))


def _path(root: str, name: str) -> str:
    return os.path.join(root, f"lease-{name}.json")
