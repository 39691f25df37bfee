"""The configuration of ssh: what the user's makes of an address, and how to write one."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flambe._grammar import is_one_line
from flambe.errors import ConfigError
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
    command += ["--", address.host]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return Told(address, user or "")
    # A configuration that ssh does not read is told when it connects.
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    found = {key: value for key, _, value in lines}
    host = found.get("hostname", address.host)
    host = address.host if host.lower() == address.host.lower() else host
    port = found.get("port", "")
    user = found.get("user", user or "")
    try:
        return Told(Address(host, int(port) if port.isdecimal() else address.port), user)
    except ValueError:  # a name that is not one of a host: ssh itself tells when it connects
        return Told(address, user)


def quoted(path: Path | str) -> str:
    """Return a path as ssh's configuration takes it: one word of one line, whatever is in it.

    Raises
    ------
    ConfigError
        If no configuration can have it: ssh knows no way to write a quote or the end of a line.
    """
    text = str(path)
    if not is_one_line(text) or '"' in text:
        raise ConfigError(f"ssh takes no path with such characters in it: {text!r}")
    text = text.replace("%", "%%")  # ssh_config(5), TOKENS
    return text if re.fullmatch(r"[\w./~+@,:=%-]+", text) else f'"{text}"'
