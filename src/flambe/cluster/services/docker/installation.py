"""Installing Docker on a host."""

from __future__ import annotations

import re
import shlex

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.environment import proxy
from flambe.cluster.services.docker.docker_client import (
    LONG_SECONDS,
    VERSION,
    DockerClient,
    DockerError,
    DockerProblem,
)

_NO_SUDO = re.compile(
    "sudo: .*(required|not found)|not in the sudoers|not allowed to (run|execute)"
)
_SUDO = '[ "$(id -u)" != 0 ] || exec "$@"; exec sudo -n'
# sudo drops the variables that name the proxy.
_KEEP_PROXY = "--preserve-env=http_proxy,https_proxy,no_proxy"


def install(cluster: ClusterContext, host: ClusterHost) -> None:
    """Install Docker and let the user use it, as far as that is not so already.

    Raises
    ------
    RemoteError
        If Docker cannot be used after that.
    """
    client = DockerClient(host)
    problem = client.diagnose()
    if problem is None:
        return
    proxy.give(cluster, host)
    if problem is DockerProblem.MISSING:
        _install_package(cluster, host)
    if problem in (DockerProblem.MISSING, DockerProblem.DENIED):
        _run_as_root(cluster, host, "usermod", "-aG", "docker", host.machine.user)
        # A login keeps the groups that its user had at its start: the next command logs in again.
        # Shown by test_docker.py::test_a_user_is_let_in.
        host.connection.close()
    client.run(*VERSION)


def _install_package(cluster: ClusterContext, host: ClusterHost) -> None:
    if host.run(["sh", "-c", "command -v apt-get"], check=False).code:
        raise DockerError(
            host.name,
            "Docker cannot be installed: there is no apt-get, as on Debian and Ubuntu\n"
            "  = see https://docs.docker.com/engine/install/",
        )
    cluster.observer.note(f"{host.name}: installing Docker")
    # It may fail for one of several lists, while the others suffice.
    _run_as_root(cluster, host, "apt-get", "update", check=False)
    options = ("-o", "DPkg::Lock::Timeout=300", "install", "-y")
    _run_as_root(cluster, host, "apt-get", *options, "docker.io")


def _run_as_root(
    cluster: ClusterContext, host: ClusterHost, *command: str, check: bool = True
) -> None:
    def forward_line(_: str, line: str) -> None:
        cluster.observer.host_line(host.machine.name, line)

    set_proxy = proxy.line(cluster)
    options = f" {_KEEP_PROXY}" if set_proxy else ""
    result = host.run(
        ["sh", "-c", f'{set_proxy}{_SUDO}{options} "$@"', "sh", *command],
        env={"LC_ALL": "C"},
        deadline=LONG_SECONDS,
        take=forward_line,
        check=False,
        shown=shlex.join(["sudo", *command]),
    )
    if result.code and _NO_SUDO.search(result.stderr):
        user = host.machine.user
        raise DockerError(
            host.name,
            f"{user} may not use sudo without a password\n"
            f"  | {result.stderr.strip()}\n"
            "  = ask an administrator of the host to run:   sudo apt-get install docker.io && "
            f"sudo usermod -aG docker {user}",
        )
    if check:
        result.checked()
