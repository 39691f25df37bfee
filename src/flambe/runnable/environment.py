"""The cluster as a remote run sees it."""

from __future__ import annotations

from collections.abc import Sequence

from flambe.compile import MappedRegistrable


class RemoteEnvironment(MappedRegistrable):
    """Where a run is, injected as ``env`` when it is remote.

    Parameters
    ----------
    key
        The path of the cluster's own private key, on the hosts.
    orchestrator_ip, factories_ips
        Addresses as seen inside the cluster.
    user
        The cluster's user.
    local_user
        The user who started the run, on their own machine.
    public_orchestrator_ip, public_factories_ips
        Addresses as seen from outside, if there are any.
    """

    def __init__(
        self,
        key: str,
        orchestrator_ip: str,
        factories_ips: Sequence[str],
        user: str,
        local_user: str = "",
        public_orchestrator_ip: str | None = None,
        public_factories_ips: Sequence[str] | None = None,
    ) -> None:
        self.key = key
        self.orchestrator_ip = orchestrator_ip
        self.factories_ips = list(factories_ips)
        self.user = user
        self.local_user = local_user
        self.public_orchestrator_ip = public_orchestrator_ip
        self.public_factories_ips = list(public_factories_ips or [])
