"""A kind of cluster of one's own, usable as ``!own_cluster.PoolCluster``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flambe.cluster import Cluster, LoopbackHost, Machine
from flambe.errors import RunError


class Pool:
    """Machines that are booked and given back: a stand-in for a lab's or a cloud's.

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

    def booked(self, cluster: str) -> list[LoopbackHost]:
        """Return the machines that a cluster has."""
        places = self.folder.glob(f"{cluster}.*")
        return [LoopbackHost(place, place.name.partition(".")[2]) for place in places]

    def book(self, cluster: str, name: str) -> Machine:
        """Book one."""
        if len(list(self.folder.glob("*.*"))) >= self.size:
            raise RunError(f"the pool has {self.size} machines, and all are booked")
        return LoopbackHost(self.folder / f"{cluster}.{name}", name).start()

    def give_back(self, cluster: str, name: str) -> None:
        """Give one back."""
        LoopbackHost(self.folder / f"{cluster}.{name}", name).remove()


class PoolCluster(Cluster):
    """A cluster of machines from a pool.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    pool
        The folder of the pool.
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
        pool: str,
        factories_num: int = 1,
        size: int = 4,
        setup_cmds: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, setup_cmds)
        self.pool = Pool(Path(pool), size)
        self.names = ["orchestrator", *(f"factory_{n + 1}" for n in range(factories_num))]

    def find_machines(self) -> list[Machine]:
        """Return the machines that are booked already, the orchestrator first."""
        machines = [host.machine() for host in self.pool.booked(self.name)]
        known = {machine.name: machine for machine in machines if machine is not None}
        return [known[name] for name in self.names if name in known]

    def missing_machines(self) -> list[str]:
        """Return the names of those that would be booked."""
        known = {machine.name for machine in self.find_machines()}
        return [name for name in self.names if name not in known]

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Book what is missing; if one cannot be had, give back those that were booked here."""
        known = {machine.name: machine for machine in found}
        booked = []
        try:
            for name in self.missing_machines():
                known[name] = self.pool.book(self.name, name)
                booked.append(name)
        except BaseException:
            for name in booked:
                self.pool.give_back(self.name, name)
            raise
        return [known[name] for name in self.names]

    def remove_machines(self) -> None:
        """Give everything back."""
        for host in self.pool.booked(self.name):
            self.pool.give_back(self.name, host.name)
