"""Folders of one host that others mount, as real machines do."""

from __future__ import annotations

from tests.metal.host import Host
from tests.metal.metal import Metal

_OPTIONS = "allow_other,default_permissions,StrictHostKeyChecking=accept-new"


def share(metal: Metal, owner: Host, host: Host, folder: str) -> None:
    """Mount a folder of one host at the same path of another, by sshfs."""
    host.run("tee", "/etc/mount-key", input=metal.key.read_text())
    host.run("chmod", "600", "/etc/mount-key")
    ids = [host.run("id", kind, host.user).stdout.strip() for kind in ("-u", "-g")]
    options = f"{_OPTIONS},IdentityFile=/etc/mount-key,uid={ids[0]},gid={ids[1]}"
    # A real machine has the device.
    host.run("sh", "-c", "[ -e /dev/fuse ] || mknod /dev/fuse c 10 229; chmod 666 /dev/fuse")
    host.run("sshfs", "-o", options, f"{owner.user}@{owner.address}:{folder}", folder)
