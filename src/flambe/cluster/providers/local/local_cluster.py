"""LocalCluster: hosts that are processes of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from flambe.cluster.cluster import Cluster, findings, written_in
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.cluster.options import Finding
from flambe.cluster.providers.local.loopback import LoopbackHost
from flambe.compile import Schema

# The folders that are recreated when they are needed.
DISPOSABLE = ("agent", "bin", "cache", "envs", "hosts", "parts", "pythons")


class LocalCluster(Cluster):
    """A cluster on this machine, without an account, root or the system's SSH server.

    Each host is a small SSH server on the loopback interface that runs as you, with a home of its
    own in ``~/.flambe/clusters/<name>/hosts/``; nothing is written elsewhere. Everything else is as
    on remote machines.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    factories_num
        How many factories.
    cpus
        How many CPUs each factory reports; by default all of this machine.
    environment
        By default the hosts use the packages that are installed here; see :class:`Cluster`.
    setup_cmds, remote_dir, gpus, site, orchestrator_works
        See :class:`Cluster`.
    """

    def __init__(
        self,
        name: str,
        factories_num: int = 1,
        cpus: int | None = None,
        setup_cmds: Sequence[str] | None = None,
        environment: Mapping[str, object] | None = None,
        remote_dir: str = ".flambe",
        gpus: Literal["all", "free"] = "all",
        site: Mapping[str, object] | None = None,
        orchestrator_works: bool = False,
    ) -> None:
        # They are on this machine: what is installed here is theirs too.
        environment = {"system": True} if environment is None else environment
        super().__init__(name, setup_cmds, environment, remote_dir, gpus, site)
        self.orchestrator_works = orchestrator_works
        self.factories_num = factories_num
        self.cpus = cpus

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong; see :class:`Cluster`."""
        yield from findings(schema.kwargs, absolute=False, folder=written_in(schema))
        for name, least in (("factories_num", 0), ("cpus", 1)):
            value = schema.kwargs.get(name)
            if isinstance(value, int) and value < least:
                yield (name,), f"{name} cannot be {value}", f"{least} or more"

    # -- its machines -------------------------------------------------------------------------

    @property
    def _hosts(self) -> list[LoopbackHost]:
        names = [ORCHESTRATOR, *(f"factory_{n + 1}" for n in range(self.factories_num))]
        return [LoopbackHost(self.local.folder / "hosts" / name, name) for name in names]

    def find_machines(self) -> list[Machine]:
        """Return the hosts whose servers run."""
        return [machine for host in self._hosts if (machine := host.machine()) is not None]

    def missing_machines(self) -> list[str]:
        """Return the names of the hosts whose servers do not run."""
        return [host.name for host in self._hosts if host.machine() is None]

    def create_machines(self, existing: Sequence[Machine]) -> list[Machine]:
        """Start the servers that do not run; if one fails, stop those that were started."""
        machines = {machine.name: machine for machine in existing}
        environment = {} if self.cpus is None else {"FLAMBE_CPUS": str(self.cpus)}
        started: list[LoopbackHost] = []
        try:
            for host in self._hosts:
                if host.name not in machines:
                    started.append(host)
                    machines[host.name] = host.start(environment)
        except BaseException:
            for host in started:
                host.stop()
            raise
        return [machines[host.name] for host in self._hosts]

    def former_machines(self) -> list[Machine]:
        """Return the hosts whose servers run, and that the file no longer describes."""
        names = {host.name for host in self._hosts}
        others = [LoopbackHost(path, path.name) for path in sorted(self._folders())]
        machines = (host.machine() for host in others if host.name not in names)
        return [machine for machine in machines if machine is not None]

    def release_machine(self, machine: Machine) -> None:
        """Stop the server of a host that left the file."""
        LoopbackHost(self.local.folder / "hosts" / machine.name, machine.name).stop()

    @property
    def ephemeral(self) -> bool:
        """False: results stay on this machine."""
        return False

    def remove_machines(self) -> None:
        """Stop the servers, and remove what can be recreated; results stay."""
        for folder in self._folders():
            LoopbackHost(folder, folder.name).stop()
            for part in DISPOSABLE:
                shutil.rmtree(folder / "home" / self.remote_dir / part, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Return the folders of all hosts, also of those that the file no longer describes."""
        return [path for path in (self.local.folder / "hosts").glob("*") if path.is_dir()]
