"""Automatic shutdown on machines that stay: what flambe runs there is stopped, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.options import Finding
from flambe.cluster.services.service import Service
from flambe.remote import each
from flambe.remote.agent.reaper import reaper_status

SERVICE = "reaper"
FOREVER = -1
CHECK = 30.0  # seconds between two looks
PATIENCE = 300.0  # seconds until what does not end is asked to end once more


def arm(
    cluster: ClusterContext, members: Sequence[ClusterHost], hours: Mapping[bool, float]
) -> None:
    """Start the reapers of hosts, with the timeouts of now; or end them, where there is none.

    Parameters
    ----------
    cluster, members
        The cluster and its hosts.
    hours
        The hours of low use after which what it runs is stopped: of the orchestrator (True), and
        of factories (False).
    """

    def on(member: ClusterHost) -> None:
        service = Service(cluster, member, SERVICE)
        timeout = hours[member.is_orchestrator]
        if timeout < 0:
            if service.runs:
                service.stop()
            return
        own = member.path(f"{member.agent.root}/hosts/{member.facts['hostname']}")
        path = reaper_status.settings_path(own, cluster.name)
        settings = {
            "timeout": timeout,
            "cluster": cluster.name,
            "lease": f"{own}/lease-*.json",
            "command": member.agent_argv("retire", cluster.name),
            "once": True,
            "patience": PATIENCE,
            "typing": 0,
            "check": CHECK,
            "seen": f"{path}.seen",
        }
        if not service.runs or service.status["about"] != settings:
            member.put(json.dumps(settings), path, mode=0o600)
            command = member.agent_argv("reap", path)
            service.start(service.request(command, settings, {}))

    each(on, members)


def findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with ``orchestrator_timeout`` and ``factories_timeout``."""
    hours = {}
    for name in ("orchestrator_timeout", "factories_timeout"):
        value = values.get(name, FOREVER)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not math.isfinite(value):
            yield (name,), f"{name} cannot be {value}", "hours; 0 at once, -1 for ever"
            continue
        hours[name] = value
        if value < 0 and value != FOREVER:
            yield (name,), f"{name} cannot be {value}", "hours; 0 at once, -1 for ever"
    if len(hours) == 2 and hours["orchestrator_timeout"] >= 0:
        longest = hours["orchestrator_timeout"]
        if not 0 <= hours["factories_timeout"] <= longest:
            yield (
                ("factories_timeout",),
                "the factories could outlive the orchestrator",
                f"factories_timeout: {longest} or less, or orchestrator_timeout: -1",
            )
