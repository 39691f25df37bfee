"""Whether hosts reach one another: by the pair of the cluster, at their private addresses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flambe.cluster.provisioning import cluster_keys
from flambe.errors import CommandError, RemoteError
from flambe.remote import each

if TYPE_CHECKING:
    from flambe.cluster.cluster import Cluster
    from flambe.cluster.cluster_host import ClusterHost

MARK = "reached"
TIMEOUT = 10  # seconds to connect


def pending(members: Sequence[ClusterHost]) -> bool:
    """Whether it was not seen yet that these hosts, at these addresses, reach one another."""
    return bool(members[0].report["marks"].get(MARK) != _digest(members))


def check(cluster: Cluster, members: Sequence[ClusterHost]) -> None:
    """See that the orchestrator reaches each factory and is reached by it; remember that it is so.

    Raises
    ------
    RemoteError
        If not: it names the private address.
    """
    orchestrator, *factories = members
    config = f"{cluster_keys.key_path(cluster)}.config"
    pairs = [pair for one in factories for pair in ((orchestrator, one), (one, orchestrator))]
    each(lambda pair: _try(cluster, config, *pair), pairs)
    orchestrator.mark(cluster.name, MARK, _digest(members))


def _try(cluster: Cluster, config: str, source: ClusterHost, target: ClusterHost) -> None:
    name = cluster_keys.alias(cluster.name, target.machine)
    # ~/ is the home of each: users may differ.
    path = f"{source.facts['home']}/.ssh/{config.rpartition('/')[2]}"
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
