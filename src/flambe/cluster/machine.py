"""A machine of a cluster, before anything is known of it but how to log in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flambe.remote import Address

ORCHESTRATOR = "orchestrator"


@dataclass(frozen=True)
class Machine:
    """One machine, as a kind of cluster finds or creates it.

    Attributes
    ----------
    name
        ``orchestrator``, ``factory_1``, ``factory_2`` …
    address
        Where it answers from outside.
    private
        Where the other machines of the cluster reach it.
    user
        Who logs in.
    key
        The user's private key; None leaves it to ssh.
    new
        It was created just now: it may take a while until it lets anybody in.
    host_keys
        Its public host keys, where the kind of cluster knows them; else the host is asked.
    """

    name: str
    address: Address
    private: Address
    user: str
    key: Path | None = None
    new: bool = False
    host_keys: tuple[str, ...] = ()
