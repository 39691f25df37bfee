"""A machine of a cluster with a connection to it, and what its agent tells."""

from __future__ import annotations

import hashlib
import posixpath
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flambe._grammar import wrong_path
from flambe.cluster.cluster_record import recorded
from flambe.cluster.local_state import ClusterFiles
from flambe.cluster.machine import NAME, ORCHESTRATOR, Machine, is_factory
from flambe.errors import RemoteError
from flambe.remote import Connection, Host, Login, transfer
from flambe.remote.agent_client import Agent
from flambe.remote.known_hosts import pin

# What a host tells of itself that names files here: see flambe.remote.agent.facts.
_FACTS = {
    "python": r"[0-9]+(\.[0-9]+)+[0-9A-Za-z+.]*",
    "platform": r"[a-z0-9]+-[A-Za-z0-9_]+",
    "libc": r"[A-Za-z0-9.]*-[A-Za-z0-9.]*",
}
LOGIN_PATH = "path"  # a mark: see ClusterHost.login_path
# How long a machine that was created just now may take until it lets us in, in seconds.
NEW_MACHINE = 300
OLD_MACHINE = 30
SILENT = 3.0  # seconds after which people are told what is waited for


class ClusterHost(Host):
    """One host of a cluster: a :class:`~flambe.remote.Host` with a role, an agent and facts.

    Attributes
    ----------
    machine
        What the cluster knows of it.
    report
        What its agent told last: facts, marks, runs, locks, environment.
    gpus
        The GPUs that the cluster may use, by UUID, as they were when it was made ready: what
        ``CUDA_VISIBLE_DEVICES`` takes.
    """

    def __init__(self, machine: Machine, files: ClusterFiles, root: str) -> None:
        login = Login(machine.address, machine.user, files.known_hosts, machine.key)
        super().__init__(Connection(login, _shown(machine)))
        self.machine = machine
        self.files = files
        self.agent = Agent(self, root)
        self.report: dict[str, Any] = {}
        self.gpus: list[str] = []

    @property
    def is_orchestrator(self) -> bool:
        """Whether it is the orchestrator."""
        return self.machine.name == ORCHESTRATOR

    @property
    def identity(self) -> str:
        """What tells this machine from all others, wherever it is and whatever its address."""
        if self.machine.identity or not self.report:
            return self.machine.identity
        keys = self.machine.host_keys or self.report["keys"]["host_keys"]
        bare = sorted({" ".join(key.split()[:2]) for key in keys if key})
        # Copies of an image may have the same keys.
        text = "\n".join([self.facts["hostname"], *bare])
        return hashlib.sha256(text.encode()).hexdigest()[:16] if bare else ""

    @property
    def recorded(self) -> Machine:
        """Its machine as it is recorded, with what identifies it."""
        return recorded(self.machine, self.identity)

    def rename(self, name: str) -> None:
        """Give it the name that it has in its cluster."""
        self.machine = replace(self.machine, name=name)
        self.connection.name = _shown(self.machine)

    @property
    def facts(self) -> dict[str, Any]:
        """What it is; see :mod:`flambe.remote.agent.facts`."""
        return dict(self.report.get("facts", {}))

    @property
    def home(self) -> str:
        """The home of the user there."""
        return str(self.facts["home"])

    @property
    def login_path(self) -> str:
        """``PATH`` of a login after the setup commands; empty until they have run."""
        return str(self.report["marks"].get(LOGIN_PATH) or "")

    def path(self, path: str) -> str:
        """Return a path on the host as an absolute one; relative ones start at the user's home."""
        return posixpath.join(self.home, path)

    def connect(
        self, seconds: float | None = None, note: Callable[[str], None] = lambda text: None
    ) -> None:
        """Connect; a machine that is new is waited for.

        Parameters
        ----------
        seconds
            How long it is tried.
        note
            Told when it takes long.
        """
        if self.machine.host_keys:
            pin(self.connection.login.known_hosts, self.machine.address, self.machine.host_keys)
        usual = NEW_MACHINE if self.machine.new else OLD_MACHINE
        waits = threading.Timer(SILENT, note, [f"waiting for {self.name}"])
        waits.daemon = True
        waits.start()
        try:
            self.connection.open(seconds or usual, patient=self.machine.new)
        finally:
            waits.cancel()

    def refresh(
        self, cluster: str, environment: str = "", *, system: bool = False
    ) -> dict[str, Any]:
        """Ask its agent for everything, in one call, and keep it.

        Parameters
        ----------
        cluster
            The cluster that marks, keys and the like are of.
        environment
            The environment whose files are hashed.
        system
            Whether it tells the distributions of the host's own Python.
        """
        self.report = self.agent.call(
            "report", cluster=cluster, environment=environment, system=system
        )
        self._check_facts()
        name = self.report.get("marks", {}).get(NAME)
        if is_factory(name) and not self.is_orchestrator and not self.machine.identity:
            self.rename(name)  # it has had it since it was in another place of the file
        self.rsync = transfer.parsed(self.facts["rsync"])
        return self.report

    def _check_facts(self) -> None:
        """See that what becomes a path here, or a line of a file, can be one.

        Raises
        ------
        RemoteError
            If the host tells something else: it may not be in good hands.
        """
        for name, pattern in _FACTS.items():
            if not re.fullmatch(pattern, str(self.facts[name])):
                raise RemoteError(self.name, f"its {name} cannot be {self.facts[name]!r}")
        home = str(self.facts["home"])
        if wrong_path(home) or not home.startswith("/"):
            raise RemoteError(self.name, f"its home cannot be {home!r}")

    def agent_argv(self, command: str, *arguments: str) -> list[str]:
        """Return the command line of its agent for a process that starts in any folder there."""
        argv = self.agent.argv(command, *arguments)
        argv[argv.index(self.agent.path)] = self.path(self.agent.path)
        return argv

    def mark(self, cluster: str, name: str, value: Any, *, boot: bool = False) -> None:
        """Note something on the host; if ``boot``, until it is started again."""
        self.agent.call("mark", cluster=cluster, name=name, value=value, boot=boot)
        if self.report:
            self.report["marks"][name] = value


def _shown(machine: Machine) -> str:
    return f"{machine.name} ({machine.address})"
