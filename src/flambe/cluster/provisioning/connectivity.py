"""Whether hosts reach one another: by the pair of the cluster, at their private addresses."""

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


def pending(members: Sequence[ClusterHost]) -> bool:
    """Whether it was not seen yet that these hosts, at these addresses, reach one another."""
    return bool(members[0].report["marks"].get(MARK) != _digest(members))


def check(cluster: ClusterContext) -> None:
    """See that the orchestrator reaches each factory and is reached by it; remember that it is so.

    Raises
    ------
    RemoteError
        If not: it names the private address.
    """
    orchestrator, *factories = cluster.hosts
    pairs = [pair for one in factories for pair in ((orchestrator, one), (one, orchestrator))]
    each(lambda pair: _connect(cluster, *pair), pairs)
    orchestrator.mark(cluster.name, MARK, _digest(cluster.hosts))


def _connect(cluster: ClusterContext, source: ClusterHost, target: ClusterHost) -> None:
    name = cluster.ssh_alias(target)
    # ~/ is the home of each: users may differ.
    path = f"{layout.key_path(source.home, cluster.name)}.config"
    command = ["ssh", "-F", path, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={TIMEOUT}"]
    where = target.machine.private
    try:
        source.run([*command, name, "true"], deadline=4 * TIMEOUT, repeat=True)
    except CommandError as error:
        said = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RemoteError(
            source.name,
            f"cannot reach {target.machine.name} at its private address {where}: {said}\n"
            f"  = is {where} right? It is the second of   [public, private]   in the file; between "
            f"hosts, port {where.port} must be open",
        ) from None


def _digest(members: Sequence[ClusterHost]) -> str:
    told = repr([(one.machine.name, str(one.machine.private)) for one in members])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
