"""Addresses as people write them: ``10.0.0.1``, ``gpu-3:2222``, ``[fe80::1]:22``."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from flambe._grammar import is_host

SSH_PORT = 22

_PORT = re.compile(r"[0-9]{1,5}\Z")


@dataclass(frozen=True)
class Address:
    """Where a host answers.

    Attributes
    ----------
    host
        A name or an IP address, without brackets.
    port
        The port of its SSH server.

    Raises
    ------
    ValueError
        If the host is neither: it becomes an argument of ssh, and a line of files that ssh reads.
    """

    host: str
    port: int = SSH_PORT

    def __post_init__(self) -> None:
        if not is_host(self.host):
            raise ValueError(f"{self.host!r} is not an address")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises
        ------
        ValueError
            If it is not an address; the message says why.
        """
        bracketed = re.match(r"\[([^\]]*)\](?::(.*))?\Z", text)
        if bracketed:
            host, port = bracketed[1], bracketed[2]
        elif text.count(":") > 1:
            host, port = text, None
        else:
            host, _, port = text.partition(":")
            port = port if ":" in text else None
        if not is_host(host):
            raise ValueError(f"{text!r} is not an address")
        if port is not None and not (_PORT.match(port) and 0 < int(port) < 65536):
            raise ValueError(f"{text!r} has no port from 1 to 65535 behind the colon")
        return cls(host, int(port) if port else SSH_PORT)

    def __str__(self) -> str:
        if self.port == SSH_PORT:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def free_port() -> int:
    """Return a port of the loopback that is free now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
