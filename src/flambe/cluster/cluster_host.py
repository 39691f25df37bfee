"""A machine of a cluster with a connection to it, and what its agent reports."""

from __future__ import annotations

import hashlib
import posixpath
import re
import threading
from collections.abc import Callable
from dataclasses import replace

from flambe._grammar import wrong_path
from flambe.cluster.cluster_record import recorded
from flambe.cluster.local_state import ClusterFiles
from flambe.cluster.machine import NAME, ORCHESTRATOR, Machine, is_factory
from flambe.errors import RemoteError
from flambe.remote import Connection, Host, Login, transfer
from flambe.remote.agent.protocol import Facts, HostReport, MarkRequest, ReportRequest
from flambe.remote.agent_client import Agent
from flambe.remote.known_hosts import pin

# The facts that name files here, or become lines of files.
_FACTS = {
    "python": r"[0-9]+(\.[0-9]+)+[0-9A-Za-z+.]*",
    "platform": r"[a-z0-9]+-[A-Za-z0-9_]+",
    "libc": r"[A-Za-z0-9.]*-[A-Za-z0-9.]*",
}
LOGIN_PATH = "path"  # a mark: see ClusterHost.login_path
# How long a machine that was just created may take until it accepts SSH logins, in seconds.
NEW_MACHINE = 300
OLD_MACHINE = 30
SILENT = 3.0  # seconds after which the user learns what is waited for


class ClusterHost(Host):
    """One host of a cluster: a :class:`~flambe.remote.Host` with a role, an agent and a report.

    Attributes
    ----------
    machine
        How to log in to it, and its name in the cluster.
    report
        What its agent reported last; empty before that.
    gpus
        The UUIDs of the GPUs that the cluster may use, as of the last provisioning: the values of
        ``CUDA_VISIBLE_DEVICES``.
    """

    def __init__(self, machine: Machine, files: ClusterFiles, root: str) -> None:
        login = Login(machine.address, machine.user, files.known_hosts, machine.key)
        super().__init__(Connection(login, _display_name(machine)))
        self.machine = machine
        self.files = files
        self.agent = Agent(self, root)
        self.report = HostReport()
        self.gpus: list[str] = []

    @property
    def is_orchestrator(self) -> bool:
        """Whether it is the orchestrator."""
        return self.machine.name == ORCHESTRATOR

    @property
    def has_report(self) -> bool:
        """Whether its agent has reported."""
        return bool(self.report.facts.home)

    @property
    def facts(self) -> Facts:
        """What the host is: its CPUs, its Python, its home."""
        return self.report.facts

    @property
    def identity(self) -> str:
        """What identifies this machine, wherever it is and whatever its address."""
        if self.machine.identity or not self.has_report:
            return self.machine.identity
        keys = self.machine.host_keys or self.report.keys.host_keys
        bare = sorted({" ".join(key.split()[:2]) for key in keys if key})
        # Copies of an image may have the same keys.
        text = "\n".join([self.facts.hostname, *bare])
        return hashlib.sha256(text.encode()).hexdigest()[:16] if bare else ""

    @property
    def recorded(self) -> Machine:
        """Its machine as it is recorded, with what identifies it."""
        return recorded(self.machine, self.identity)

    @property
    def home(self) -> str:
        """The home of the user there."""
        return self.facts.home

    @property
    def login_path(self) -> str:
        """``PATH`` of a login after the setup commands; empty until they have run."""
        path = self.report.marks.get(LOGIN_PATH)
        return path if isinstance(path, str) else ""

    def rename(self, name: str) -> None:
        """Give it the name that it has in its cluster."""
        self.machine = replace(self.machine, name=name)
        self.connection.name = _display_name(self.machine)

    def path(self, path: str) -> str:
        """Return a path on the host as an absolute one; relative ones start at the user's home."""
        return posixpath.join(self.home, path)

    def connect(
        self, seconds: float | None = None, notify: Callable[[str], None] = lambda text: None
    ) -> None:
        """Connect, and wait for a machine that is new.

        Parameters
        ----------
        seconds
            How long to try.
        notify
            Called with a text if it takes long.
        """
        if self.machine.host_keys:
            pin(self.connection.login.known_hosts, self.machine.address, self.machine.host_keys)
        usual = NEW_MACHINE if self.machine.new else OLD_MACHINE
        timer = threading.Timer(SILENT, notify, [f"waiting for {self.name}"])
        timer.daemon = True
        timer.start()
        try:
            self.connection.open(seconds or usual, patient=self.machine.new)
        finally:
            timer.cancel()

    def refresh(self, cluster: str, environment: str = "", *, system: bool = False) -> HostReport:
        """Ask its agent for a report, in one call, and keep it.

        Parameters
        ----------
        cluster
            The cluster whose marks and keys are reported.
        environment
            The environment whose files are hashed.
        system
            Whether the distributions of the host's own Python are reported.
        """
        report = self.agent.ask(ReportRequest(cluster, environment, system))
        self._check_facts(report.facts)
        self.report = report
        name = report.marks.get(NAME)
        if (
            isinstance(name, str)
            and is_factory(name)
            and not self.is_orchestrator
            and not self.machine.identity
        ):
            self.rename(name)  # it has had it since it was at another position in the file
        self.rsync = transfer.parsed(report.facts.rsync)
        return report

    def _check_facts(self, facts: Facts) -> None:
        """Check that what becomes a path here, or a line of a file, can be one.

        Raises
        ------
        RemoteError
            If it cannot: the host may be compromised.
        """
        values = {"python": facts.python, "platform": facts.platform, "libc": facts.libc}
        for name, pattern in _FACTS.items():
            if not re.fullmatch(pattern, values[name]):
                raise RemoteError(self.name, f"its {name} cannot be {values[name]!r}")
        if wrong_path(facts.home) or not facts.home.startswith("/"):
            raise RemoteError(self.name, f"its home cannot be {facts.home!r}")

    def agent_argv(self, command: str, *arguments: str) -> list[str]:
        """Return the command line of its agent for a process that starts in any folder there."""
        argv = self.agent.argv(command, *arguments)
        argv[argv.index(self.agent.path)] = self.path(self.agent.path)
        return argv

    def mark(self, cluster: str, name: str, value: object, *, boot: bool = False) -> None:
        """Store a value on the host; with ``boot``, until it is started again."""
        self.agent.ask(MarkRequest(cluster, name, value, boot))
        self.report.marks[name] = value


def _display_name(machine: Machine) -> str:
    return f"{machine.name} ({machine.address})"
