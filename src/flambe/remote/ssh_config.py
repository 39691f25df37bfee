"""The configuration of ssh: resolving addresses by the user's, and quoting paths in ours."""

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
class ResolvedLogin:
    """What ssh's configuration makes of an address.

    Attributes
    ----------
    address
        Where ssh would connect to: for an alias, the host and the port that it stands for.
    user
        Who would log in; empty where ssh cannot be asked.
    """

    address: Address
    user: str


def resolve(address: Address, user: str | None = None) -> ResolvedLogin:
    """Return what ssh makes of an address; an explicit port other than 22 takes precedence."""
    command = ["ssh", "-G", *(["-l", user] if user else [])]
    command += ["-p", str(address.port)] if address.port != SSH_PORT else []
    command += ["--", address.host]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ResolvedLogin(address, user or "")
    # An error in the configuration is reported when ssh connects.
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    options = {key: value for key, _, value in lines}
    host = options.get("hostname", address.host)
    host = address.host if host.lower() == address.host.lower() else host
    port = options.get("port", "")
    user = options.get("user", user or "")
    try:
        resolved = Address(host, int(port) if port.isdecimal() else address.port)
    except ValueError:  # not the name of a host: ssh itself reports it when it connects
        resolved = address
    return ResolvedLogin(resolved, user)


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
