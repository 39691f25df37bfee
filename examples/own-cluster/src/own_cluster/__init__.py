"""A kind of cluster of one's own, usable as ``!own_cluster.PoolCluster``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from flambe.cluster import Cluster, LoopbackHost, Machine
from flambe.errors import RunError


class Pool(Protocol):
    """What lends machines: a lab's booking system, or a cloud."""

    def machines_of(self, cluster: str) -> list[Machine]:
        """Return the machines that a cluster has booked."""

    def book(self, cluster: str, name: str) -> Machine:
        """Book a machine."""

    def give_back(self, cluster: str, name: str) -> None:
        """Give a machine back."""


class LocalPool:
    """A pool of machines that are processes of this one: a stand-in for a real one.

    Parameters
    ----------
    folder
        Where the machines are.
    size
        How many it has.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size

    def machines_of(self, cluster: str) -> list[Machine]:
        """Return the machines that a cluster has booked, and that run."""
        paths = self.folder.glob(f"{cluster}.*")
        hosts = [LoopbackHost(path, path.name.partition(".")[2]) for path in paths]
        return [machine for host in hosts if (machine := host.machine()) is not None]

    def book(self, cluster: str, name: str) -> Machine:
        """Book a machine."""
        if len(list(self.folder.glob("*.*"))) >= self.size:
            raise RunError(f"the pool has {self.size} machines, and all are booked")
        return LoopbackHost(self.folder / f"{cluster}.{name}", name).start()

    def give_back(self, cluster: str, name: str) -> None:
        """Give a machine back."""
        LoopbackHost(self.folder / f"{cluster}.{name}", name).remove()


class PoolCluster(Cluster):
    """A cluster of machines from a pool.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    pool
        The folder of the pool; tests have another :class:`Pool`.
    factories_num
        How many factories.
    size
        How many machines the pool has.
    setup_cmds
        See :class:`flambe.cluster.Cluster`.
    """

    def __init__(
        self,
        name: str,
        pool: str | Pool,
        factories_num: int = 1,
        size: int = 4,
        setup_cmds: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, setup_cmds)
        self.pool: Pool = LocalPool(Path(pool), size) if isinstance(pool, str) else pool
        self.names = ["orchestrator", *(f"factory_{n + 1}" for n in range(factories_num))]

    def find_machines(self) -> list[Machine]:
        """Return the machines that are booked already, the orchestrator first."""
        machines = {machine.name: machine for machine in self.pool.machines_of(self.name)}
        return [machines[name] for name in self.names if name in machines]

    def missing_machines(self) -> list[str]:
        """Return the names of those that would be booked."""
        existing = {machine.name for machine in self.find_machines()}
        return [name for name in self.names if name not in existing]

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Book what is missing; if that fails, give back what was booked here."""
        machines = {machine.name: machine for machine in found}
        booked = []
        try:
            for name in self.missing_machines():
                machines[name] = self.pool.book(self.name, name)
                booked.append(name)
        except BaseException:
            for name in booked:
                self.pool.give_back(self.name, name)
            raise
        return [machines[name] for name in self.names]

    def remove_machines(self) -> None:
        """Give everything back."""
        for machine in self.pool.machines_of(self.name):
            self.pool.give_back(self.name, machine.name)
