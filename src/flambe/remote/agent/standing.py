"""What the reaper of this host is told to do, and what it saw last."""

from __future__ import annotations

import os
from typing import Any

from flambe.remote.agent.files import read_json

SYSTEM = "/var/lib/flambe"  # of the reaper that ends a whole machine


def settings_path(own: str, cluster: str) -> str:
    """Return where the settings are of the reaper that ends what a cluster runs here."""
    return os.path.join(own, f"reaper-{cluster}.json")


def read(own: str, cluster: str) -> dict[str, Any]:
    """Return the ``settings`` of the reaper, and what it has ``seen``; empty, if there is none."""
    for path in (os.path.join(SYSTEM, "reaper.json"), settings_path(own, cluster)):
        if settings := read_json(path):
            return {"settings": settings, "seen": read_json(settings.get("seen", "")) or {}}
    return {}
