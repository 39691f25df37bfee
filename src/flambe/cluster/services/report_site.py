"""The Report Site on the orchestrator: started with a run, kept until the cluster is taken down."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.services.service import RUNNING, Service, name_of, variables
from flambe.cluster.services.site_address import SiteOptions
from flambe.remote import ssh_config

SERVICE = "site"
LOOPBACK = "127.0.0.1"
SITE_PORT, TENSORBOARD_PORT = 49558, 49556
# Which of the usual ports are free; another one for each that is not.
_PORTS = """
import socket, sys
for place in sys.argv[1:]:
    host, _, wanted = place.rpartition(" ")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((host, int(wanted)))
    except OSError:
        one = socket.socket(family)
        one.bind((host, 0))
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
        host = f"[{self.host}]" if ":" in self.host else self.host
        where = f"{host}:{self.port}" if port is None else f"127.0.0.1:{port}"
        return f"{scheme}://{where}/?token={self.token}"


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
        options = self.options
        listens = options.host if options is not None else LOOPBACK
        # Where it listens elsewhere from now on, its ports may be taken there.
        ports = known.get("ports") if known.get("host", LOOPBACK) == listens else None
        ports = ports or self._free_ports(listens)
        token = _read_token(cluster.folder, host)
        if not token:
            token = secrets.token_urlsafe(32)
            host.put(token, _token(cluster.folder), mode=0o600)
        about = {"environment": cluster.environment_name, "folder": folder, "ports": ports}
        command = [cluster.python(host), "-m", "flambe", "site", folder, "--port", str(ports[0])]
        command += ["--tensorboard-port", str(ports[1])]
        command += ["--token-file", host.path(_token(cluster.folder))]
        if options is not None:
            about.update(host=listens, secure=options.certificate is not None, files=options.digest)
            command += ["--host", listens, "--name", _named(listens, host)]
            command += self._send_files(options)
            if options.certificate is None:
                text = "what it sends is not encrypted: give site a certificate and a key"
                cluster.observer.note(f"the Report Site is open to all who reach {listens}; {text}")
        service.start(service.request(command, about, variables(cluster, host)))
        return Place(ports[0], token, _named(listens, host), bool(about.get("secure")))

    def _send_files(self, options: SiteOptions) -> list[str]:
        """Bring the certificate and its key to the orchestrator; return the options to use them."""
        words, host = [], self.cluster.orchestrator
        for name, source in (("certificate", options.certificate), ("key", options.key)):
            if source is not None:
                path = certificate_path(self.cluster, name)
                host.put(source.read_bytes(), path, mode=0o600)
                words += [f"--{name}", host.path(path)]
        return words

    def _free_ports(self, listens: str) -> list[int]:
        wanted = [f"{listens} {SITE_PORT}", f"{LOOPBACK} {TENSORBOARD_PORT}"]
        told = self.cluster.orchestrator.run(["python3", "-c", _PORTS, *wanted]).stdout
        ports = [int(line) for line in told.split()]
        for port, usual, what in zip(
            ports, (SITE_PORT, TENSORBOARD_PORT), ("the Report Site", "TensorBoard"), strict=True
        ):
            if port != usual:
                text = f"port {usual} of the orchestrator is taken: {what} is at {port}"
                self.cluster.observer.note(text)
        return ports


def runs(name: str, host: ClusterHost) -> bool:
    """Whether the site of a cluster ran when its orchestrator was looked at last."""
    status: Mapping[str, Any] = host.report["runs"].get(name_of(name, SERVICE), {})
    return status.get("state") == RUNNING


def find(name: str, host: ClusterHost) -> Place | None:
    """Return where the site of a cluster is, if it runs."""
    if not runs(name, host):
        return None
    about = host.report["runs"][name_of(name, SERVICE)]["about"]
    if "ports" not in about:  # what its state was cannot be read
        return None
    token = _read_token(layout.of(host.agent.root, name), host)
    where = _named(about.get("host", LOOPBACK), host)
    return Place(about["ports"][0], token, where, about.get("secure", False))


def _named(listens: str, host: ClusterHost) -> str:
    """Return the address that people open: where it listens anywhere, that of the host."""
    if listens not in ("0.0.0.0", "::"):
        return listens
    # Others do not have the names of our ssh configuration.
    return ssh_config.ask(host.machine.address, host.machine.user).address.host


def certificate_path(cluster: ClusterContext, kind: str) -> str:
    """Return where the certificate or the key of the site is on the orchestrator."""
    return f"{cluster.folder}/site.{kind}.pem"


def _token(folder: str) -> str:
    return f"{folder}/site.token"


def _read_token(folder: str, host: ClusterHost) -> str:
    return host.run(["cat", _token(folder)], check=False, repeat=True).stdout.strip()
