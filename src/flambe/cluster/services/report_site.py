"""The Report Site on the orchestrator: started with a run, kept until the cluster is taken down."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.services.service import Service, name_of, variables
from flambe.cluster.services.site_address import SiteOptions
from flambe.remote import ssh_config

SERVICE = "site"
LOOPBACK = "127.0.0.1"
SITE_PORT, TENSORBOARD_PORT = 49558, 49556
# Prints the ports, or another free one for each that is taken.
_FREE_PORTS = """
import socket, sys
for address in sys.argv[1:]:
    host, _, port = address.rpartition(" ")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError:
        listener = socket.socket(family)
        listener.bind((host, 0))
    print(listener.getsockname()[1])
"""


@dataclass(frozen=True)
class SiteAddress:
    """How to open a site that runs.

    Attributes
    ----------
    port
        Its port; on the loopback of the orchestrator, unless ``host`` is set.
    token
        The token that it asks for.
    host
        The address that it listens on.
    secure
        Whether it uses TLS.
    """

    port: int
    token: str
    host: str = LOOPBACK
    secure: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only the orchestrator itself reaches it."""
        return self.host == LOOPBACK

    def url(self, port: int | None = None) -> str:
        """Return the URL to open, directly or through a tunnel that begins at a local port."""
        scheme = "https" if self.secure else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        address = f"{host}:{self.port}" if port is None else f"127.0.0.1:{port}"
        return f"{scheme}://{address}/?token={self.token}"


@dataclass(frozen=True)
class RunningSite:
    """A site that runs, as its supervisor keeps it."""

    ports: tuple[int, int]
    host: str = LOOPBACK
    secure: bool = False

    @classmethod
    def of(cls, about: Mapping[str, object]) -> RunningSite | None:
        """Return the site that a supervisor keeps; None if that cannot be read."""
        ports = about.get("ports")
        if not isinstance(ports, list) or [type(port) for port in ports] != [int, int]:
            return None
        host = str(about.get("host", LOOPBACK))
        return cls((ports[0], ports[1]), host, bool(about.get("secure")))


class ReportSite:
    """The Report Site of a cluster.

    Parameters
    ----------
    cluster
        The cluster.
    options
        Where it listens, if not on the loopback of the orchestrator.
    """

    def __init__(self, cluster: ClusterContext, options: SiteOptions | None = None) -> None:
        self.cluster = cluster
        self.options = options

    def start(self, folder: str) -> SiteAddress:
        """Start it for the run in a folder of the orchestrator, unless it runs like that.

        Parameters
        ----------
        folder
            The folder of the run, absolute.
        """
        cluster, host, options = self.cluster, self.cluster.orchestrator, self.options
        service = Service(cluster, host, SERVICE)
        listens_on = options.host if options is not None else LOOPBACK
        running = RunningSite.of(service.about)
        # Its ports may be taken on another address.
        if running is not None and running.host == listens_on:
            ports = running.ports
        else:
            ports = self._choose_ports(listens_on)
        token = _read_token(cluster.folder, host)
        if not token:
            token = secrets.token_urlsafe(32)
            host.put(token, _token_path(cluster.folder), mode=0o600)
        about: dict[str, object] = {
            "environment": cluster.environment_name,
            "folder": folder,
            "ports": list(ports),
        }
        command = [cluster.python(host), "-m", "flambe", "site", folder, "--port", str(ports[0])]
        command += ["--tensorboard-port", str(ports[1])]
        command += ["--token-file", host.path(_token_path(cluster.folder))]
        if options is not None:
            secure = options.certificate is not None
            about.update(host=listens_on, secure=secure, files=options.digest)
            command += ["--host", listens_on, "--name", _public_host(listens_on, host)]
            command += self._send_files(options)
            if not secure:
                hint = "its traffic is not encrypted: give site a certificate and a key"
                cluster.observer.note(
                    f"the Report Site is open to everyone who reaches {listens_on}; {hint}"
                )
        service.start(service.start_request(command, about, variables(cluster, host)))
        return SiteAddress(
            ports[0], token, _public_host(listens_on, host), bool(about.get("secure"))
        )

    def _send_files(self, options: SiteOptions) -> list[str]:
        """Copy the certificate and its key to the orchestrator; return the options to use them."""
        arguments: list[str] = []
        host = self.cluster.orchestrator
        for name, source in (("certificate", options.certificate), ("key", options.key)):
            if source is not None:
                path = certificate_path(self.cluster, name)
                host.put(source.read_bytes(), path, mode=0o600)
                arguments += [f"--{name}", host.path(path)]
        return arguments

    def _choose_ports(self, listens_on: str) -> tuple[int, int]:
        """Return the usual ports, or free ones in place of those that are taken."""
        usual = (SITE_PORT, TENSORBOARD_PORT)
        addresses = [f"{listens_on} {SITE_PORT}", f"{LOOPBACK} {TENSORBOARD_PORT}"]
        output = self.cluster.orchestrator.run(["python3", "-c", _FREE_PORTS, *addresses]).stdout
        site, tensorboard = (int(line) for line in output.split())
        names = ("the Report Site", "TensorBoard")
        for name, port, expected in zip(names, (site, tensorboard), usual, strict=True):
            if port != expected:
                text = f"port {expected} of the orchestrator is taken: {name} is at {port}"
                self.cluster.observer.note(text)
        return site, tensorboard


def is_running(name: str, host: ClusterHost) -> bool:
    """Whether the site of a cluster runs, by the report of its orchestrator."""
    status = host.report.runs.get(name_of(name, SERVICE))
    return status is not None and status.runs


def find(name: str, host: ClusterHost) -> SiteAddress | None:
    """Return the address of the site of a cluster, if it runs."""
    status = host.report.runs.get(name_of(name, SERVICE))
    running = RunningSite.of(status.about) if status is not None and status.runs else None
    if running is None:
        return None
    token = _read_token(layout.of(host.agent.root, name), host)
    return SiteAddress(running.ports[0], token, _public_host(running.host, host), running.secure)


def _public_host(listens_on: str, host: ClusterHost) -> str:
    """Return the address that users open: that of the host, if it listens on all."""
    if listens_on not in ("0.0.0.0", "::"):
        return listens_on
    # Other users do not have the names of our ssh configuration.
    return ssh_config.resolve(host.machine.address, host.machine.user).address.host


def certificate_path(cluster: ClusterContext, kind: str) -> str:
    """Return the path of the certificate or the key of the site on the orchestrator."""
    return f"{cluster.folder}/site.{kind}.pem"


def _token_path(folder: str) -> str:
    return f"{folder}/site.token"


def _read_token(folder: str, host: ClusterHost) -> str:
    return host.run(["cat", _token_path(folder)], check=False, repeat=True).stdout.strip()
