"""How to log in to a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flambe._grammar import as_list
from flambe.remote.address import Address
from flambe.remote.ssh_config import quoted

CONNECT_TIMEOUT = 10
# A dead link is noticed after 4 × 15 seconds; a shorter break is survived.
ALIVE_INTERVAL, ALIVE_COUNT = 15, 4


@dataclass(frozen=True)
class Login:
    """How to log in to a host.

    Attributes
    ----------
    address, user
        Where, and as whom.
    key
        A private key; None leaves it to the user's agent and configuration.
    known_hosts
        The host keys of the cluster. A host that is unknown here and to the user is added, a
        changed key stops everything.
    options
        More options of ssh, ``"ProxyJump=gate"``.
    """

    address: Address
    user: str
    known_hosts: Path
    key: Path | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        as_list(self.options, "options takes a list of options of ssh")

    def arguments(self) -> list[str]:
        """Return the arguments of ssh, without the destination."""
        users_own = "~/.ssh/known_hosts"
        options = [
            "BatchMode=yes",
            f"UserKnownHostsFile={quoted(self.known_hosts)} {users_own}",
            "StrictHostKeyChecking=accept-new",
            "UpdateHostKeys=no",
            "HashKnownHosts=no",
            f"ConnectTimeout={CONNECT_TIMEOUT}",
            f"ServerAliveInterval={ALIVE_INTERVAL}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            *self.options,
        ]
        if self.key is not None:
            options += [f"IdentityFile={quoted(self.key)}", "IdentitiesOnly=yes"]
        port = ["-p", str(self.address.port)]
        return [*port, "-l", self.user, *(part for option in options for part in ("-o", option))]
