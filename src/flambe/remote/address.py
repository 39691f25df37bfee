"""Addresses as people write them: ``10.0.0.1``, ``gpu-3:2222``, ``[fe80::1]:22``."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

SSH_PORT = 22

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")


@dataclass(frozen=True)
class Address:
    """Where a host answers.

    Attributes
    ----------
    host
        A name or an IP address, without brackets.
    port
        The port of its SSH server.
    """

    host: str
    port: int = SSH_PORT

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises
        ------
        ValueError
            If it is none: it says why.
        """
        bracketed = re.match(r"\[([^\]]*)\](?::(.*))?\Z", text)
        if bracketed:
            host, port = bracketed[1], bracketed[2]
        elif text.count(":") > 1:
            host, port = text, None
        else:
            host, _, port = text.partition(":")
            port = port if ":" in text else None
        if not _is_ip(host) and not _NAME.match(host):
            raise ValueError(f"{text!r} is not an address")
        if port is not None and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{text!r} has no port from 1 to 65535 behind the colon")
        return cls(host, int(port) if port else SSH_PORT)

    def __str__(self) -> str:
        if self.port == SSH_PORT:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
