"""The status of this host's reaper: its settings, and what it observed last."""

from __future__ import annotations

import os
import time

from flambe.remote.agent.files import read_json
from flambe.remote.agent.protocol import ReaperStatus
from flambe.remote.agent.reaper.settings import Observation, ReaperSettings

SYSTEM = "/var/lib/flambe"  # of the reaper that ends a whole machine
SYSTEM_SETTINGS = ("reaper.json", "reaper.json.good", "reaper.first.json")  # if one is damaged


def settings_path(own: str, cluster: str) -> str:
    """Return where the settings are of the reaper that ends what a cluster runs here."""
    return os.path.join(own, f"reaper-{cluster}.json")


def read(own: str, cluster: str) -> ReaperStatus | None:
    """Return the status of the reaper that the host has; None if it has none."""
    system = [os.path.join(SYSTEM, name) for name in SYSTEM_SETTINGS]
    for path in (*system, settings_path(own, cluster)):
        try:
            settings = ReaperSettings.from_json(read_json(path))
        except ValueError:
            continue
        ready = not settings.ready or os.path.exists(settings.ready)
        return ReaperStatus(settings, _observation(settings.seen), ready, time.time())
    return None


def _observation(path: str) -> Observation:
    try:
        return Observation.from_json(read_json(path))
    except ValueError:
        return Observation()
