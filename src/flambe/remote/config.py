"""What the user's configuration of ssh makes of an address: asked of ssh itself (``ssh -G``)."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from flambe.remote.address import SSH_PORT, Address

_SECONDS = 30


@dataclass(frozen=True)
class Told:
    """What ssh would do.

    Attributes
    ----------
    address
        Where it would connect to: of an alias, the host and the port that it stands for.
    user
        Who would log in; empty where ssh cannot be asked.
    """

    address: Address
    user: str


def ask(address: Address, user: str | None = None) -> Told:
    """Return what ssh makes of an address; a port other than 22 that was written counts."""
    command = ["ssh", "-G", *(["-l", user] if user else [])]
    command += ["-p", str(address.port)] if address.port != SSH_PORT else []
    try:
        done = subprocess.run(
            [*command, address.host], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return Told(address, user or "")
    # A configuration that ssh does not read is told when it connects.
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    found = {key: value for key, _, value in lines}
    host = found.get("hostname", address.host)
    host = address.host if host.lower() == address.host.lower() else host
    port = found.get("port", "")
    known = Address(host, int(port)) if port.isdecimal() else Address(host, address.port)
    return Told(known, found.get("user", user or ""))
