"""What is on the disk of a host when it first boots: the upper layer of an overlay."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

from tests.metal.machine import MetalError

INIT = "/usr/sbin/metal-init"
HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]

# The folders of a Debian system; whatever else lies beside them is this machine's alone.
SYSTEM = {"bin", "boot", "dev", "etc", "home", "media", "mnt", "opt", "proc", "root"}
SYSTEM |= {"run", "sbin", "srv", "sys", "tmp", "usr", "var"}
# Those that hold what somebody put there, empty on a host: name → mode.
EMPTY = {"home": 0o755, "media": 0o755, "mnt": 0o755, "opt": 0o755, "root": 0o700, "srv": 0o755}
EMPTY |= {"var/tmp": 0o1777, "usr/local": 0o755}
# Settings of this machine, which a host does not have.
GONE = ["etc/pip.conf", "etc/xdg/pip", "etc/environment"]

HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
"""


class Disk:
    """The disk of one host, laid out before it is mounted over a base."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.base = base
        self.upper = folder / "upper"
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)
        self.upper.chmod(0o755)

    def lay_out(self, *, name: str, address: str, user: str) -> None:
        """Hide what would mislead, and write what differs from host to host."""
        if not self.base.is_dir():
            raise MetalError(f"a base must be a folder: {self.base}")
        if self.base == Path("/"):
            self._hide_this_machine()
        self._empty("tmp", 0o1777)  # now, for each boot removes what it finds there
        for key in self.base.glob("etc/ssh/ssh_host_*"):
            if not key.name.startswith(Path(HOST_KEY).name):  # which it gets one of its own of
                self._remove(str(key.relative_to(self.base)))
        self.write("etc/hostname", f"{name}\n")
        self.write("etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{address} {name}\n")
        self.write("etc/machine-id", f"{uuid.uuid4().hex}\n")
        self.write("etc/resolv.conf", resolvers())
        self.write("etc/default/ssh", "SSHD_OPTS=\n")
        self.write("etc/ssh/sshd_config", SSHD)
        self.write("etc/sudoers.d/metal", f"{user} ALL=(ALL) NOPASSWD:ALL\n", 0o440)
        self.write(INIT.lstrip("/"), HERE.joinpath("init.sh").read_text(encoding="utf-8"))
        self.write("var/log/sshd.log", "", 0o600)

    def _hide_this_machine(self) -> None:
        for entry in self.base.iterdir():
            # lib64 and its like are links, or folders, of the system too.
            if entry.name not in SYSTEM and not entry.name.startswith("lib"):
                self._remove(entry.name)
        for name, mode in EMPTY.items():
            self._empty(name, mode)
        for name in GONE:
            self._remove(name)
        hidden = [Path("/", name) for name in ("tmp", *EMPTY)]
        if CHECKOUT.parts[1] in SYSTEM and not any(map(CHECKOUT.is_relative_to, hidden)):
            self._remove(str(CHECKOUT.relative_to("/")))
        for name in ("bin", "lib", "sbin", "share"):
            self._make(f"usr/local/{name}")

    def _make(self, name: str) -> Path:
        """Make a folder, and those above it, with the owners and modes that they have below."""
        path = self.upper
        for part in Path(name).parts:
            path = path / part
            if not path.is_dir():
                path.mkdir(mode=0o755)
                below = self.base / path.relative_to(self.upper)
                if below.is_dir():
                    os.chown(path, below.stat().st_uid, below.stat().st_gid)
                    path.chmod(stat.S_IMODE(below.stat().st_mode))
        return path

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file, before the host boots."""
        self._make(str(Path(name).parent))
        path = self.upper / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def _remove(self, name: str) -> None:
        """Hide an entry of the base: to an overlay, this device is one that was removed."""
        if os.path.lexists(self.base / name):
            self._make(str(Path(name).parent))
            os.mknod(self.upper / name, stat.S_IFCHR, os.makedev(0, 0))

    def _empty(self, name: str, mode: int) -> None:
        """Hide what a folder of the base holds."""
        path = self._make(name)
        os.chown(path, 0, 0)
        path.chmod(mode)
        os.setxattr(path, "trusted.overlay.opaque", b"y")


def resolvers() -> str:
    """Return the name servers of this machine, as hosts reach them."""
    # With systemd the usual file names a server on the loopback, and this one the real ones.
    for path in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if path.exists():
            return path.read_text(encoding="utf-8")
    return ""
