"""Automatic shutdown on machines that stay on: it stops what flambe runs there, nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.options import Finding
from flambe.cluster.services.service import Service
from flambe.remote import each
from flambe.remote.agent.reaper import reaper_status
from flambe.remote.agent.reaper.settings import ReaperSettings

SERVICE = "reaper"
FOREVER = -1
CHECK = 30.0  # seconds between two measurements
PATIENCE = 300.0  # seconds before processes that have not ended are stopped again


def arm(cluster: ClusterContext, hosts: Sequence[ClusterHost], hours: Mapping[bool, float]) -> None:
    """Start the reapers of hosts with their current timeouts; stop those without a timeout.

    Parameters
    ----------
    cluster, hosts
        The cluster, and the hosts.
    hours
        The hours of low use after which what it runs is stopped: of the orchestrator (True), and
        of factories (False).
    """

    def arm_host(host: ClusterHost) -> None:
        service = Service(cluster, host, SERVICE)
        timeout = hours[host.is_orchestrator]
        if timeout < 0:
            if service.is_running:
                service.stop()
            return
        own = host.path(f"{host.agent.root}/hosts/{host.facts.hostname}")
        path = reaper_status.settings_path(own, cluster.name)
        settings = ReaperSettings(
            timeout=timeout,
            cluster=cluster.name,
            lease=f"{own}/lease-*.json",
            command=host.agent_argv("retire", cluster.name),
            once=True,
            patience=PATIENCE,
            typing=0,
            check=CHECK,
            seen=f"{path}.seen",
        ).to_json()
        if service.about != settings:
            host.put(json.dumps(settings), path, mode=0o600)
            command = host.agent_argv("reap", path)
            service.start(service.start_request(command, settings, {}))

    each(arm_host, hosts)


def findings(values: Mapping[str, object]) -> Iterator[Finding]:
    """Yield what is wrong with ``orchestrator_timeout`` and ``factories_timeout``."""
    hours = {}
    for name in ("orchestrator_timeout", "factories_timeout"):
        value = values.get(name, FOREVER)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not math.isfinite(value):
            yield (name,), f"{name} cannot be {value}", "hours; 0 for at once, -1 for never"
            continue
        hours[name] = value
        if value < 0 and value != FOREVER:
            yield (name,), f"{name} cannot be {value}", "hours; 0 for at once, -1 for never"
    if len(hours) == 2 and hours["orchestrator_timeout"] >= 0:
        longest = hours["orchestrator_timeout"]
        if not 0 <= hours["factories_timeout"] <= longest:
            yield (
                ("factories_timeout",),
                "the factories could outlive the orchestrator",
                f"factories_timeout: {longest} or less, or orchestrator_timeout: -1",
            )
