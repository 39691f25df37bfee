"""How the hosts of a cluster stand: for how long they have run, and when they end by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SILENT = 900.0  # seconds without a look of a reaper: a step that ends a host may take some minutes


@dataclass(frozen=True)
class InstanceStatus:
    """One host that was created, as whoever bills it sees it.

    Attributes
    ----------
    identity
        What it is called there.
    state
        ``running``, ``stopped``, ``pending``.
    age
        Seconds since it was launched.
    """

    identity: str
    state: str
    age: float

    @property
    def is_off(self) -> bool:
        """Whether it was stopped: it may be started again, with what is on it."""
        return self.state in ("stopped", "stopping")

    @property
    def hours(self) -> float:
        """The hours that it has run, since it was launched or started last."""
        return self.age / 3600 if self.state == "running" else 0.0


def ends(reaper: Mapping[str, Any]) -> str:
    """Return when a host ends by itself, or why it does not: ``in 25 min``, ``a run needs it``.

    Parameters
    ----------
    reaper
        What the agent tells of the host's reaper: its ``settings``, what it has ``seen`` last,
        whether the host was ``ready``, and the time ``now``, by the clock of the host.
    """
    settings, seen = reaper.get("settings") or {}, reaper.get("seen") or {}
    if not settings:
        return ""
    hours = float(settings.get("timeout", -1.0))
    if not reaper.get("ready", True):
        return f"unless it is ready within {_took(float(settings['provisioning']) * 3600)}"
    if hours < 0:
        return "never"
    since = max(0.0, float(reaper.get("now", 0.0)) - float(seen.get("time", 0.0)))
    if seen.get("time") and since > SILENT + 10 * float(settings.get("check", 0.0)):
        return f"unknown: its reaper has not looked for {_took(since)}"
    if seen.get("use"):
        return f"not while {seen['use']}"
    if not seen:
        return f"after {_took(hours * 3600)} of low use"
    left = hours * 3600 - float(seen.get("idle", 0.0)) - since
    text = f"in {_took(left)}, if nothing happens" if left > 0 else "at any moment"
    return "; ".join([text, *(str(problem) for problem in seen.get("problems", ()))])


def outlook(reaper: Mapping[str, Any]) -> str:
    """Return what ``flambe down`` does after a run, and what happens without it."""
    settings = reaper.get("settings") or {}
    hours = float(settings.get("timeout", -1.0))
    is_machine = bool(settings) and "cluster" not in settings
    what = "takes its hosts down" if is_machine else "ends Ray and the Report Site"
    if hours < 0:
        return f"{what}, which stay up until then"
    after = f"after {_took(hours * 3600)} of low use" if hours else "as soon as they are idle"
    return f"{what}; they end by themselves {after}"


def _took(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"
