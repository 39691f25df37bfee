"""The Report Site on the orchestrator: started with a run, kept until the cluster is taken down."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flambe.cluster.services import RUNNING, Service, name_of, variables

if TYPE_CHECKING:
    from flambe.cluster.cluster import Cluster
    from flambe.cluster.member import Member

SERVICE = "site"
LOOPBACK = "127.0.0.1"
SITE_PORT, TENSORBOARD_PORT = 49558, 49556
# Which of the usual ports are free; another one for each that is not.
_PORTS = """
import socket, sys
for wanted in sys.argv[1:]:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", int(wanted)))
    except OSError:
        one = socket.socket()
        one.bind(("127.0.0.1", 0))
    print(one.getsockname()[1])
"""


@dataclass(frozen=True)
class Place:
    """Where a site is on its host.

    Attributes
    ----------
    port
        Its port; on the loopback of the orchestrator, unless ``host`` says otherwise.
    token
        What lets people in.
    host
        The address that it listens on.
    secure
        Whether it speaks TLS.
    """

    port: int
    token: str
    host: str = LOOPBACK
    secure: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only its host reaches it."""
        return self.host == LOOPBACK

    def url(self, port: int | None = None) -> str:
        """Return the address to open, through a tunnel that begins at a local port or directly."""
        scheme = "https" if self.secure else "http"
        where = f"{self.host}:{self.port}" if port is None else f"127.0.0.1:{port}"
        return f"{scheme}://{where}/?token={self.token}"


class ReportSite:
    """The Report Site of a cluster.

    Parameters
    ----------
    cluster
        The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def start(self, folder: str) -> Place:
        """Start it for the run in a folder of the orchestrator, or leave it where it runs.

        Parameters
        ----------
        folder
            The folder of the run, absolute.
        """
        cluster, host = self.cluster, self.cluster.orchestrator
        service = Service(cluster, host, SERVICE)
        known = service.status.get("about", {}) if service.runs else {}
        ports = known.get("ports") or self._free_ports()
        token = _read_token(cluster.remote_dir, cluster.name, host)
        if not token:
            token = secrets.token_urlsafe(32)
            host.put(token, _token(cluster.remote_dir, cluster.name), mode=0o600)
        about = {"environment": cluster.installed, "folder": folder, "ports": ports}
        command = [cluster.python(host), "-m", "flambe", "site", folder, "--port", str(ports[0])]
        command += ["--tensorboard-port", str(ports[1])]
        command += ["--token-file", host.path(_token(cluster.remote_dir, cluster.name))]
        service.start(service.request(command, about, variables(cluster, host)))
        return Place(ports[0], token)

    def _free_ports(self) -> list[int]:
        wanted = [str(SITE_PORT), str(TENSORBOARD_PORT)]
        told = self.cluster.orchestrator.run(["python3", "-c", _PORTS, *wanted]).stdout
        ports = [int(line) for line in told.split()]
        for port, usual, what in zip(
            ports, (SITE_PORT, TENSORBOARD_PORT), ("the Report Site", "TensorBoard"), strict=True
        ):
            if port != usual:
                text = f"port {usual} of the orchestrator is taken: {what} is at {port}"
                self.cluster.observer.note(text)
        return ports


def runs(name: str, host: Member) -> bool:
    """Whether the site of a cluster ran when its orchestrator was looked at last."""
    status: Mapping[str, Any] = host.report["runs"].get(name_of(name, SERVICE), {})
    return status.get("state") == RUNNING


def find(name: str, host: Member) -> Place | None:
    """Return where the site of a cluster is, if it runs."""
    if not runs(name, host):
        return None
    about = host.report["runs"][name_of(name, SERVICE)]["about"]
    token = _read_token(host.agent.root, name, host)
    return Place(about["ports"][0], token, about.get("host", LOOPBACK), about.get("secure", False))


def _token(remote_dir: str, name: str) -> str:
    return f"{remote_dir}/clusters/{name}/site.token"


def _read_token(remote_dir: str, name: str, host: Member) -> str:
    command = ["cat", _token(remote_dir, name)]
    return host.run(command, check=False, repeat=True).stdout.strip()
