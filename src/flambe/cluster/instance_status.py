"""The status of created instances, and when the reapers of hosts end them."""

from __future__ import annotations

from dataclasses import dataclass

from flambe.remote.agent.protocol import ReaperStatus

SILENT = 900.0  # seconds without a check of a reaper: a step that ends a host may take minutes


@dataclass(frozen=True)
class InstanceStatus:
    """One host that was created, as its provider reports it.

    Attributes
    ----------
    identity
        Its name there.
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
        """Whether it was stopped: it may be started again, with its disk."""
        return self.state in ("stopped", "stopping")

    @property
    def hours(self) -> float:
        """The hours that it has run, since it was launched or started last."""
        return self.age / 3600 if self.state == "running" else 0.0


def describe_end(reaper: ReaperStatus | None) -> str:
    """Return when a host ends by itself, or why it does not: ``in 25 min``, ``a run needs it``.

    Empty for a host without a reaper.
    """
    if reaper is None or not reaper.settings.command:
        return ""
    settings, seen = reaper.settings, reaper.seen
    if not reaper.ready:
        return f"unless it is ready within {_duration(settings.provisioning * 3600)}"
    if settings.timeout < 0:
        return "never"
    since = max(0.0, reaper.now - seen.time)
    if seen.time and since > SILENT + 10 * settings.check:
        return f"unknown: its reaper has not checked for {_duration(since)}"
    if seen.use:
        return f"not while {seen.use}"
    if not seen.time:
        return f"after {_duration(settings.timeout * 3600)} of low use"
    left = settings.timeout * 3600 - seen.idle - since
    text = f"in {_duration(left)}, if nothing happens" if left > 0 else "at any moment"
    return "; ".join([text, *seen.problems])


def describe_down(reaper: ReaperStatus | None) -> str:
    """Return what ``flambe down`` does after a run, and what happens without it."""
    hours, ends_machine = -1.0, False
    if reaper is not None and reaper.settings.command:
        hours, ends_machine = reaper.settings.timeout, not reaper.settings.cluster
    action = "takes its hosts down" if ends_machine else "ends Ray and the Report Site"
    if hours < 0:
        return f"{action}, which stay up until then"
    after = f"after {_duration(hours * 3600)} of low use" if hours else "as soon as they are idle"
    return f"{action}; they end by themselves {after}"


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"
