"""A cluster whose hosts do not exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flambe.cluster import Cluster, Machine
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.errors import RemoteError
from flambe.remote import Address
from flambe.remote.agent.protocol import Facts
from flambe.testing.fake_agent import FACTS, FakeAgent
from flambe.testing.fake_connection import FakeConnection, Reply


class RecordingObserver:
    """Keeps the messages and the lines that a cluster shows."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[tuple[str, str]] = []

    def note(self, text: str) -> None:
        """Keep a message."""
        self.notes.append(text)

    def host_line(self, host: str, text: str) -> None:
        """Keep a line that a command on a host printed."""
        self.lines.append((host, text))


class RecordingCluster(Cluster):
    r"""A cluster that is ready at once, and records what is run on its hosts and sent to them.

    It is what the ``setup()`` and the methods of a :class:`~flambe.runnable.ClusterRunnable` are
    called with in tests. Nothing is run, and nothing is written on this machine.

    Parameters
    ----------
    factories
        How many factories it has.
    name
        Its name.
    facts
        What each host is; :data:`FACTS <flambe.testing.fake_agent.FACTS>` by default.
    orchestrator_works
        See :class:`flambe.cluster.Cluster`.

    Attributes
    ----------
    connections
        The connection of each host by name, ``orchestrator``, ``factory_1`` …: see
        :class:`FakeConnection`.
    agents
        The agent of each host by name.
    recorded
        The messages and lines that it has shown.

    Examples
    --------
    >>> cluster = RecordingCluster(factories=2)
    >>> cluster.answer(["nproc"], "8\n")
    >>> cluster.factories[0].run(["nproc"]).stdout
    '8\n'
    >>> cluster.commands
    {'orchestrator': [], 'factory_1': ['nproc'], 'factory_2': []}
    """

    def __init__(
        self,
        factories: int = 1,
        *,
        name: str = "recorded",
        facts: Facts = FACTS,
        orchestrator_works: bool = False,
    ) -> None:
        super().__init__(name, orchestrator_works=orchestrator_works)
        self.recorded = RecordingObserver()
        self.observer = self.recorded
        names = ["orchestrator", *(f"factory_{n + 1}" for n in range(factories))]
        self.machines = [fake_machine(name, n + 1) for n, name in enumerate(names)]
        self.connections: dict[str, FakeConnection] = {}
        self.agents: dict[str, FakeAgent] = {}
        self.hosts = tuple(self._host(machine, facts) for machine in self.machines)

    def _host(self, machine: Machine, facts: Facts) -> ClusterHost:
        host = ClusterHost(machine, self.local, self.remote_dir)
        connection = FakeConnection(host.name, host.connection.login)
        facts = replace(facts, hostname=machine.name)
        self.connections[machine.name] = connection
        self.agents[machine.name] = FakeAgent(connection, facts)
        host.connection = connection
        host.refresh(self.name)
        return host

    def find_machines(self) -> list[Machine]:
        """Return all machines: they exist already."""
        return list(self.machines)

    def provision(
        self,
        distributions: Sequence[str] = (),
        *,
        setup_again: bool = False,
        repair: bool = False,
    ) -> ClusterContext:
        """Return the cluster as it is: it is ready."""
        return self.context

    # -- what a test says and asks ----------------------------------------------------------------

    def answer(
        self,
        start: Sequence[str] | str,
        stdout: str | Reply = "",
        *,
        stderr: str = "",
        code: int = 0,
        error: RemoteError | None = None,
    ) -> None:
        """Script the answer of all hosts to a command: see :meth:`FakeConnection.answer`."""
        for connection in self.connections.values():
            connection.answer(start, stdout, stderr=stderr, code=code, error=error)

    @property
    def commands(self) -> dict[str, list[str]]:
        """The commands that were run on each host as people call them, without the agent's."""
        return {
            name: [
                str(command)
                for command in connection.commands
                if not command.title.startswith("flambe's agent: ")
            ]
            for name, connection in self.connections.items()
        }


def fake_machine(name: str, number: int = 1) -> Machine:
    """Return a machine that does not exist, at ``192.0.2.<number>``.

    These addresses are reserved for documentation (RFC 5737).
    """
    address = Address(f"192.0.2.{number}")
    return Machine(name, address, address, "user", host_keys=(f"ssh-ed25519 {name}",))
