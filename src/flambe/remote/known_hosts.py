"""Files of known hosts: the keys by which ssh recognises a host."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flambe._files import file_lock, private_folder, private_opener, write_private
from flambe.remote.address import SSH_PORT, Address


def create(path: Path) -> None:
    """Create the file before ssh does, which leaves its mode to the umask."""
    private_folder(path.parent)
    with open(path, "a", opener=private_opener):
        pass


def pin(known_hosts: Path, address: Address, keys: Sequence[str]) -> None:
    """Accept these keys of a host, and no others, before the first connection to it."""
    name = listed(address)
    entries = [f"{name} {' '.join(key.split()[:2])}" for key in keys]
    with file_lock(known_hosts.with_suffix(".lock")):
        text = known_hosts.read_text(encoding="utf-8") if known_hosts.exists() else ""
        lines = text.splitlines()
        if [line for line in lines if line.split(" ")[0] == name] != entries:
            kept = [line for line in lines if line.split(" ")[0] != name]
            write_private(known_hosts, "\n".join([*kept, *entries]) + "\n")


def listed(address: Address) -> str:
    """Return an address as it is written in files of known hosts."""
    return address.host if address.port == SSH_PORT else f"[{address.host}]:{address.port}"


def fingerprints(known_hosts: Path, address: Address) -> Sequence[str]:
    """Return the fingerprints of the known keys of a host."""
    command = ["ssh-keygen", "-l", "-F", listed(address), "-f", str(known_hosts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return re.findall(r"SHA256:\S+", done.stdout)
