"""The cluster, as a run on it sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flambe._grammar import as_list, is_host
from flambe.compile import MappedRegistrable


class RemoteEnvironment(MappedRegistrable):
    """The hosts of a cluster and how to reach them, injected as ``env`` into a run on it.

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
        Addresses as seen from outside the cluster, if there are any.
    resources
        Name → path of the resources on every host; ``~`` is the home of its user.
    factories_names
        The names of the factories, in the order of their addresses: a machine keeps its name when
        others leave the cluster. By default ``factory_1``, ``factory_2`` …
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
        resources: Mapping[str, str] | None = None,
        factories_names: Sequence[str] | None = None,
    ) -> None:
        self.key = key
        self.orchestrator_ip = orchestrator_ip
        self.factories_ips = as_list(factories_ips, "factories_ips takes a list of addresses")
        self.user = user
        self.local_user = local_user
        self.public_orchestrator_ip = public_orchestrator_ip
        self.public_factories_ips = as_list(
            public_factories_ips or [], "public_factories_ips takes a list of addresses"
        )
        self.resources = dict(resources or {})
        numbered = [f"factory_{number}" for number, _ in enumerate(self.factories_ips, 1)]
        self.factories_names = list(factories_names or numbered)

    def ssh(self, address: str) -> list[str]:
        """Return the command line that logs in to a host of the cluster from another one.

        Raises
        ------
        ValueError
            If the text is not an address.

        Examples
        --------
        >>> subprocess.run([*self.env.ssh(self.env.factories_ips[0]), "nvidia-smi"])
        """
        host, _, port = address.rpartition(":") if address.count(":") == 1 else (address, "", "")
        host = host or address
        if not is_host(host) or (port and not re.fullmatch("[0-9]{1,5}", port)):
            raise ValueError(f"{address!r} is not an address")
        options = ["-F", f"{self.key}.config", "-o", "BatchMode=yes"]
        return ["ssh", *options, *(["-p", port] if port else []), "--", host]
