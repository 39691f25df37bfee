"""The key pair of a cluster, for connections between its hosts: the user's key stays here."""

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
from flambe.remote.agent.protocol import ForgetKeysRequest, KeysRequest
from flambe.remote.known_hosts import listed
from flambe.remote.ssh_config import quoted


def agree(name: str, hosts: Sequence[ClusterHost]) -> bool:
    """Whether all hosts have the same pair, and the host keys of one another."""
    keys = [host.report.keys for host in hosts]
    return (
        len({entry.pair for entry in keys}) == 1
        and all(entry.pair and entry.authorized for entry in keys)
        and all(host.report.keys.peers == _digest(*_ssh_files(name, host, hosts)) for host in hosts)
    )


def distribute(name: str, hosts: Sequence[ClusterHost]) -> None:
    """Make a new pair, and install it on all hosts, with the host keys of the others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"flambe:{name}"]
        subprocess.run([*command, "-f", str(path)], check=True, capture_output=True)
        private, public = path.read_text(), path.with_suffix(".pub").read_text()

    def install(host: ClusterHost) -> None:
        config, known_hosts = _ssh_files(name, host, hosts)
        host.agent.ask(KeysRequest(name, private, public, config, known_hosts))

    each(install, hosts)


def remove(name: str, hosts: Sequence[ClusterHost]) -> None:
    """Remove the pair from hosts."""
    each(lambda host: host.agent.ask(ForgetKeysRequest(name)), hosts)


def _ssh_files(name: str, host: ClusterHost, hosts: Sequence[ClusterHost]) -> tuple[str, str]:
    """Return ssh's configuration on a host, and the pinned host keys of all hosts."""
    base = layout.key_path(host.home, name)
    by_alias, by_address, known_hosts = [], [], []
    for other in hosts:
        machine = other.machine
        keys = [key for key in machine.host_keys or other.report.keys.host_keys if key]
        if not keys:
            raise RemoteError(other.name, "its public host keys cannot be read in /etc/ssh")
        if problem := wrong_user(machine.user):
            raise RemoteError(other.name, problem)
        hostname = machine.private.host.replace("%", "%%")  # ssh_config(5), TOKENS
        block = (
            f"  HostName {hostname}\n"
            f"  Port {machine.private.port}\n"
            f"  User {machine.user}\n"
            f"  IdentityFile {quoted(base)}\n"
            f"  UserKnownHostsFile {quoted(f'{base}.known_hosts')}\n"
            "  StrictHostKeyChecking yes\n"
        )
        by_alias.append(f"Host {layout.ssh_alias(name, machine.name)}\n{block}")
        by_address.append(f"Host {machine.private.host}\n{block}")
        address = listed(machine.private)
        known_hosts += [f"{address} {' '.join(key.split()[:2])}\n" for key in keys]
    # What follows an Include is read as if it stood outside of every Host block.
    return "".join([*by_alias, *by_address, "Match all\n"]), "".join(known_hosts)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
