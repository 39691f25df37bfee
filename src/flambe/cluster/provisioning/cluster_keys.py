"""The cluster's own key pair: its hosts reach one another by it, and the user's stays here."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from flambe._grammar import wrong_user
from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import RemoteError
from flambe.remote import each
from flambe.remote.known_hosts import listed
from flambe.remote.ssh_config import quoted


def agree(name: str, members: Sequence[ClusterHost]) -> bool:
    """Whether all hosts have the same pair, and know one another."""
    found = [member.report["keys"] for member in members]
    return (
        len({keys["pair"] for keys in found}) == 1
        and all(keys["pair"] and keys["authorized"] for keys in found)
        and all(
            member.report["keys"]["peers"] == _digest(*_peers(name, member, members))
            for member in members
        )
    )


def distribute(name: str, members: Sequence[ClusterHost]) -> None:
    """Make a new pair, and give it to all hosts, with the host keys of the others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"flambe:{name}"]
        subprocess.run([*command, "-f", str(path)], check=True, capture_output=True)
        private, public = path.read_text(), path.with_suffix(".pub").read_text()

    def give(member: ClusterHost) -> None:
        config, known_hosts = _peers(name, member, members)
        member.agent.call(
            "keys",
            cluster=name,
            private=private,
            public=public,
            config=config,
            known_hosts=known_hosts,
        )

    each(give, members)


def remove(name: str, members: Sequence[ClusterHost]) -> None:
    """Remove the pair from hosts."""
    each(lambda member: member.agent.call("forget_keys", cluster=name), members)


def _peers(name: str, member: ClusterHost, members: Sequence[ClusterHost]) -> tuple[str, str]:
    """Return ssh's configuration on a host, and the host keys of all: pinned, never asked."""
    base = layout.key_path(member.home, name)
    named, plain, known = [], [], []
    for other in members:
        machine = other.machine
        told = machine.host_keys or other.report["keys"]["host_keys"]
        keys = [key for key in told if key]
        if not keys:
            raise RemoteError(other.name, "its public host keys cannot be read in /etc/ssh")
        if what := wrong_user(machine.user):
            raise RemoteError(other.name, what)
        hostname = machine.private.host.replace("%", "%%")  # ssh_config(5), TOKENS
        block = (
            f"  HostName {hostname}\n"
            f"  Port {machine.private.port}\n"
            f"  User {machine.user}\n"
            f"  IdentityFile {quoted(base)}\n"
            f"  UserKnownHostsFile {quoted(f'{base}.known_hosts')}\n"
            "  StrictHostKeyChecking yes\n"
        )
        named.append(f"Host {layout.ssh_alias(name, machine.name)}\n{block}")
        plain.append(f"Host {machine.private.host}\n{block}")
        known += [f"{listed(machine.private)} {' '.join(key.split()[:2])}\n" for key in keys]
    # What follows an Include is read as if it stood outside of every Host.
    return "".join([*named, *plain, "Match all\n"]), "".join(known)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
