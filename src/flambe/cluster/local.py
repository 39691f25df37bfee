"""LocalCluster: hosts that are processes of this machine, for those who have one machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flambe.cluster.cluster import Cluster, Finding, findings
from flambe.cluster.machine import ORCHESTRATOR, Machine
from flambe.compile import Schema
from flambe.errors import RemoteError
from flambe.remote import Address
from flambe.remote.agent import supervisor

LOOPBACK = "127.0.0.1"
# What is made anew at need; results stay.
REMADE = ("agent", "bin", "cache", "envs", "hosts", "parts")


class LocalCluster(Cluster):
    """A cluster on this machine: no account, no root and no SSH server of the system is needed.

    Each host is a small SSH server on the loopback, run by you, with a home of its own below
    ``~/.flambe/clusters/<name>/hosts/``; nothing is written elsewhere. All else is as on machines
    far away.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``.
    factories_num
        How many factories.
    cpus
        How many CPUs each factory shows; all of this machine by default.
    setup_cmds, environment, remote_dir
        See :class:`Cluster`.
    """

    def __init__(
        self,
        name: str,
        factories_num: int = 1,
        cpus: int | None = None,
        setup_cmds: Sequence[str] | None = None,
        environment: Mapping[str, Any] | None = None,
        remote_dir: str = ".flambe",
    ) -> None:
        super().__init__(name, setup_cmds, environment, remote_dir)
        self.factories_num = factories_num
        self.cpus = cpus

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[Finding]:
        """Yield what is wrong; see :class:`Cluster`."""
        yield from findings(schema.kwargs)
        for name, least in (("factories_num", 0), ("cpus", 1)):
            value = schema.kwargs.get(name)
            if isinstance(value, int) and value < least:
                yield (name,), f"{name} cannot be {value}", f"{least} or more"

    # -- its machines -------------------------------------------------------------------------

    @property
    def _names(self) -> list[str]:
        return [ORCHESTRATOR, *(f"factory_{n + 1}" for n in range(self.factories_num))]

    @property
    def _servers(self) -> str:
        return str(self.local.folder / "servers")

    @property
    def _key(self) -> Path:
        return self.local.folder / "key"

    def home_of(self, name: str) -> Path:
        """Return the home of a host."""
        return self.local.folder / "hosts" / name

    def find_machines(self) -> list[Machine]:
        """Return the hosts whose servers run."""
        found = []
        for name in self._names:
            status = supervisor.status(self._servers, name)
            if status is not None and status["state"] == supervisor.RUNNING:
                found.append(self._machine(name, status["about"]["port"]))
        return found

    def create_machines(self, found: Sequence[Machine]) -> list[Machine]:
        """Start the servers that do not run; those that were started are ended if one fails."""
        known = {machine.name: machine for machine in found}
        started = []
        try:
            for name in self._names:
                if name not in known:
                    started.append(name)
                    known[name] = self._start(name)
        except BaseException:
            for name in started:
                supervisor.stop(self._servers, name)
            raise
        return [known[name] for name in self._names]

    def remove_machines(self) -> None:
        """End the servers, and remove what is made anew at need; results stay."""
        statuses = supervisor.statuses(self._servers)
        for name in statuses:
            supervisor.stop(self._servers, name)
            for part in REMADE:
                shutil.rmtree(self.home_of(name) / self.remote_dir / part, ignore_errors=True)
        shutil.rmtree(self._servers, ignore_errors=True)
        self.local.known_hosts.unlink(missing_ok=True)

    def _machine(self, name: str, port: int) -> Machine:
        import getpass

        address = Address(LOOPBACK, port)
        public = _public(self._host_key(name)).read_text(encoding="utf-8")
        return Machine(name, address, address, getpass.getuser(), self._key, True, (public,))

    def _host_key(self, name: str) -> Path:
        return self.local.folder / "hosts" / f"{name}.key"

    def _start(self, name: str) -> Machine:
        home, port = self.home_of(name), _free_port()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _key_pair(self._key)
        _key_pair(self._host_key(name))
        programs = (os.path.join(sys.base_prefix, "bin"), os.environ.get("PATH", os.defpath))
        environment = {
            "HOME": str(home),
            "FLAMBE_CPUS": "" if self.cpus is None else str(self.cpus),
            # The hosts have the interpreter of this flambe, without its environment.
            "PATH": os.pathsep.join(programs),
            "PYTHONPATH": sysconfig.get_paths()["purelib"],
        }
        command = [sys.executable, "-m", "flambe.cluster.local_host"]
        command += ["--port", str(port), "--host-key", str(self._host_key(name))]
        command += ["--key", str(_public(self._key))]
        supervisor.start(
            self._servers, name, command, str(home), environment, {"port": port, "name": name}
        )
        status = supervisor.status(self._servers, name)
        if status is None or status["state"] != supervisor.RUNNING:
            log = Path(self._servers, "runs", name, "output.log")
            raise RemoteError(name, f"its server ended at once; see {log}")
        _pin(self.local.known_hosts, port, self._host_key(name))
        return self._machine(name, port)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


def _key_pair(path: Path) -> None:
    """Make a key pair, once."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flambe", "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)


def _public(key: Path) -> Path:
    return Path(f"{key}.pub")


def _pin(known_hosts: Path, port: int, key: Path) -> None:
    """Know the key of a server; an earlier one may have had its port."""
    line = f"[{LOOPBACK}]:{port}"
    lines = known_hosts.read_text(encoding="utf-8").splitlines() if known_hosts.exists() else []
    kept = [known for known in lines if not known.startswith(f"{line} ")]
    public = " ".join(_public(key).read_text(encoding="utf-8").split()[:2])
    known_hosts.write_text("\n".join([*kept, f"{line} {public}"]) + "\n", encoding="utf-8")
