"""How tests reach a host from outside."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.metal import Host, Metal
from tests.metal.machine import until

OPTIONS = ["BatchMode=yes", "ConnectTimeout=3", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"]


class Client:
    """The ``ssh`` of this machine, which knows the hosts."""

    def __init__(self, metal: Metal, folder: Path) -> None:
        self.metal = metal
        self.folder = folder

    def argv(
        self, host: Host, command: str, *options: str, user: str = "", key: Path | None = None
    ) -> list[str]:
        known = self.folder / f"known-{host.name}"
        if not known.exists():
            known.write_text(f"{host.name} {host.host_key}\n", encoding="utf-8")
        settings = [
            *options,  # of two, the first counts
            *OPTIONS,
            f"HostName={host.address}",
            f"HostKeyAlias={host.name}",
            f"UserKnownHostsFile={known}",
            "GlobalKnownHostsFile=none",
        ]
        who = ["-i", str(key or self.metal.key), "-l", user or host.user]
        return ["ssh", "-F", "none", *who, *(f"-o{word}" for word in settings), host.name, command]

    def __call__(
        self, host: Host, command: str, *options: str, user: str = "", key: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(host, command, *options, user=user, key=key),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def out(self, host: Host, command: str, *options: str) -> str:
        done = self(host, command, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def banner(address: str, port: int = 22) -> bytes:
    """Return how the greeting of a server starts."""
    with socket.create_connection((address, port), 1) as connection:
        return connection.recv(4)


def wait(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    until(condition, "what the test waits for", 20)
