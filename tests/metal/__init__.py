"""Real hosts on one machine: namespaces, a disk, an address, an sshd and a user with sudo each.

``with Metal(count=3) as metal:`` in tests, ``python -m tests.metal up 3`` by hand. Needs root.
"""

import shutil

from tests.metal.host import Host
from tests.metal.machine import CLEAN, MetalError
from tests.metal.metal import Metal

# Programs of this machine that are used, here or (a host starts as a copy of it) on the hosts,
# and the Debian packages that have them.
PACKAGES = {
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "python3": "python3",
    "rsync": "rsync",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "sudo": "sudo",
    "useradd": "passwd",
}

__all__ = ["PACKAGES", "Host", "Metal", "MetalError", "missing"]


def missing() -> list[str]:
    """Return the packages that this machine lacks."""
    found = {name: shutil.which(name, path=CLEAN["PATH"]) for name in PACKAGES}
    return sorted({PACKAGES[name] for name, path in found.items() if path is None})
