"""A host that is a process of this machine: an SSH server on the loopback, and a home."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from flambe._files import private_folder
from flambe._retry import poll
from flambe.cluster.machine import Machine
from flambe.errors import RemoteError
from flambe.remote import Address
from flambe.remote.address import free_port
from flambe.remote.agent import supervisor
from flambe.remote.agent.protocol import StartRequest, StopRequest

LOOPBACK = "127.0.0.1"
START_DEADLINE = 60.0


class LoopbackHost:
    """A host that is a process of this machine.

    Parameters
    ----------
    folder
        Everything that it has: ``home`` is its home, and its keys are beside that.
    name
        Its name in the cluster: ``orchestrator``, ``factory_1`` …
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    @property
    def home(self) -> Path:
        """The home of its user."""
        return self.folder / "home"

    @property
    def key(self) -> Path:
        """The private key that logs in."""
        return self.folder / "key"

    @property
    def _host_key(self) -> Path:
        return self.folder / "host_key"

    @property
    def _port(self) -> int | None:
        status = supervisor.status(str(self.folder), "server")
        port = status.about.get("port") if status is not None and status.runs else None
        return port if isinstance(port, int) else None

    def machine(self) -> Machine | None:
        """Return how to log in to it, or None if it does not run."""
        port = self._port
        if port is None:
            return None
        address = Address(LOOPBACK, port)
        public = _public(self._host_key).read_text(encoding="utf-8")
        user = getpass.getuser()
        return Machine(self.name, address, address, user, self.key, host_keys=(public,))

    def start(self, environment: Mapping[str, str] | None = None) -> Machine:
        """Start it, and wait until it accepts connections.

        Parameters
        ----------
        environment
            Variables of its sessions; ``FLAMBE_CPUS`` is the number of CPUs that it reports.

        Raises
        ------
        RemoteError
            If it does not answer.
        """
        private_folder(self.home)
        for key in (self.key, self._host_key):
            _key_pair(key)
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "flambe.cluster.providers.local.ssh_server",
            "--port",
            str(port),
        ]
        command += ["--host-key", str(self._host_key), "--key", str(_public(self.key))]
        programs = (os.path.join(sys.base_prefix, "bin"), os.environ.get("PATH", os.defpath))
        settings = {
            "HOME": str(self.home),
            # The interpreter of this flambe, without the packages of its environment.
            "PATH": os.pathsep.join(programs),
            "PYTHONPATH": sysconfig.get_paths()["purelib"],
            # The interpreter whose packages a cluster with ``environment: {system: true}`` uses.
            "FLAMBE_PYTHON": sys.executable,
            **(environment or {}),
        }
        request = StartRequest(
            name="server",
            command=command,
            folder=str(self.home),
            env=settings,
            about={"port": port},
        )
        supervisor.start(str(self.folder), request)
        poll(lambda: self._port is None or _answers(port), seconds=START_DEADLINE, pause=0.05)
        if not _answers(port):
            log = self.folder / "runs" / "server" / "output.log"
            self.stop()
            raise RemoteError(self.name, f"its server does not answer; see {log}")
        machine = self.machine()
        assert machine is not None
        return machine

    def stop(self) -> None:
        """Stop it; its home stays."""
        supervisor.stop(str(self.folder), StopRequest("server"))

    def remove(self) -> None:
        """Stop it, and remove all that it has."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1) as client:
        return client.recv(4) == b"SSH-"
    return False


def _public(key: Path) -> Path:
    return Path(f"{key}.pub")


def _key_pair(path: Path) -> None:
    """Make a key pair if there is none."""
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flambe", "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        _public(path).chmod(0o600)
