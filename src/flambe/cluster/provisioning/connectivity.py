"""Whether hosts reach one another, with the cluster's key pair at their private addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.errors import CommandError, RemoteError
from flambe.remote import each

MARK = "reached"
TIMEOUT = 10  # seconds to connect


def is_unverified(hosts: Sequence[ClusterHost]) -> bool:
    """Whether the connections between these hosts, at these addresses, were not verified yet."""
    return bool(hosts[0].report.marks.get(MARK) != _digest(hosts))


def verify(cluster: ClusterContext) -> None:
    """Check that the orchestrator and each factory reach one another; mark the hosts as verified.

    Raises
    ------
    RemoteError
        If one does not reach another: the error names the private address.
    """
    orchestrator, *factories = cluster.hosts
    pairs = [
        pair for factory in factories for pair in ((orchestrator, factory), (factory, orchestrator))
    ]
    each(lambda pair: _connect(cluster, *pair), pairs)
    orchestrator.mark(cluster.name, MARK, _digest(cluster.hosts))


def _connect(cluster: ClusterContext, source: ClusterHost, target: ClusterHost) -> None:
    alias, address = cluster.ssh_alias(target), target.machine.private
    # The users of two hosts may differ, and so their homes.
    config = f"{layout.key_path(source.home, cluster.name)}.config"
    command = ["ssh", "-F", config, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={TIMEOUT}"]
    try:
        source.run([*command, alias, "true"], deadline=4 * TIMEOUT, repeat=True)
    except CommandError as error:
        reason = (error.stderr.strip().splitlines() or ["ssh printed nothing"])[-1]
        raise RemoteError(
            source.name,
            f"cannot reach {target.machine.name} at its private address {address}: {reason}\n"
            f"  = is {address} right? It is the second of   [public, private]   in the file; "
            f"between hosts, port {address.port} must be open",
        ) from None


def _digest(hosts: Sequence[ClusterHost]) -> str:
    addresses = repr([(host.machine.name, str(host.machine.private)) for host in hosts])
    return hashlib.sha256(addresses.encode()).hexdigest()[:16]
