"""What the reaper of this host is told to do, and what it saw last."""

from __future__ import annotations

import os
import time
from typing import Any

from flambe.remote.agent.files import read_json

SYSTEM = "/var/lib/flambe"  # of the reaper that ends a whole machine
SYSTEM_SETTINGS = ("reaper.json", "reaper.json.good", "reaper.first.json")  # where one is spoilt


def settings_path(own: str, cluster: str) -> str:
    """Return where the settings are of the reaper that ends what a cluster runs here."""
    return os.path.join(own, f"reaper-{cluster}.json")


def read(own: str, cluster: str) -> dict[str, Any]:
    """Return the ``settings`` of the reaper, what it has ``seen``, and more; or nothing."""
    system = [os.path.join(SYSTEM, name) for name in SYSTEM_SETTINGS]
    for path in (*system, settings_path(own, cluster)):
        if settings := read_json(path):
            ready = settings.get("ready")
            return {
                "settings": settings,
                "seen": read_json(settings.get("seen", "")) or {},
                "ready": not ready or os.path.exists(ready),
                "now": time.time(),
            }
    return {}
