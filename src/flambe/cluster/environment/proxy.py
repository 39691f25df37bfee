"""The HTTP proxy of a cluster, for downloads on its hosts and for the processes there.

Its URL may contain a password: it travels as the content of a file and as the input of programs,
never as an argument, which every user of a host could see.
"""

from __future__ import annotations

import shlex

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.layout import in_shell
from flambe.logging import redact

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def variables(cluster: ClusterContext, url: str = "") -> dict[str, str]:
    """Return the environment variables that select the proxy; none if there is no proxy.

    Parameters
    ----------
    cluster
        The cluster; its own hosts are reached without the proxy.
    url
        The proxy; by default that of the cluster.
    """
    url = url or cluster.environment.proxy
    if not url:
        return {}
    machines = [host.machine for host in cluster.hosts]
    inside = [address.host for m in machines for address in (m.private, m.address)]
    excluded = ",".join(dict.fromkeys((*LOOPBACK, *inside)))
    lower = {"http_proxy": url, "https_proxy": url, "no_proxy": excluded}
    # Some programs read the lower case, some the upper case.
    return {**lower, **{name.upper(): value for name, value in lower.items()}}


def path(cluster: ClusterContext) -> str:
    """Return the file on the hosts that sets the variables, from the home of the user."""
    return f"{cluster.folder}/proxy"


def give(cluster: ClusterContext, host: ClusterHost, url: str = "") -> None:
    """Write the file on a host, for its user alone, if there is a proxy."""
    if url:
        redact.add_url(url)
    if exported := variables(cluster, url):
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exported.items()]
        host.put("".join(lines), path(cluster), mode=0o600)


def line(cluster: ClusterContext, *, always: bool = False) -> str:
    """Return the line of a shell script that sets the variables; empty if there is no proxy."""
    if not always and not cluster.environment.proxy:
        return ""
    return f". {in_shell(path(cluster))}\n"
