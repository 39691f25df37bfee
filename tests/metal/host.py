"""A host as a cluster sees it: an address, an sshd, a user; and all that can go wrong with it."""

from __future__ import annotations

import shlex
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.metal.disk import HOST_KEY
from tests.metal.machine import Claim, MetalError, command_line, kill, parent, sh, until
from tests.metal.node import BOOT_SECONDS, Node
from tests.metal.relay import Relay

if TYPE_CHECKING:
    from contextlib import ExitStack

LOG = "var/log/sshd.log"

# Debian locks a new account until it has a password, and sshd refuses a locked one without PAM.
# The folder of a user that the base has may have been hidden.
ADD_USER = """
id "$1" > /dev/null 2>&1 || useradd --create-home --user-group --shell /bin/bash "$1"
usermod --password NP "$1"
home=$(getent passwd "$1" | cut -d: -f6)
group=$(id -g "$1")
[ -d "$home" ] || install -d -o "$1" -g "$group" -m 755 "$home"
install -d -o "$1" -g "$group" -m 700 "$home/.ssh"
cat > "$home/.ssh/authorized_keys"
chown "$1:$group" "$home/.ssh/authorized_keys"
"""
LAYER = """
home=$(getent passwd "$1" | cut -d: -f6)
group=$(id -g "$1")
install -d -o "$1" -g "$group" -m 700 "$home/.flambe" "$home/.flambe/envs"
chown "$1:$group" /run/layer/own/upper
own=upperdir=/run/layer/own/upper,workdir=/run/layer/own/work
mount -t overlay environments -o "lowerdir=/run/layer/lower,$own" "$home/.flambe/envs"
"""
FILL = """
mkdir -p "$2"
mount -t tmpfs -o "size=$3m,mode=755,uid=$(id -u "$1"),gid=$(id -g "$1")" metal "$2"
"""


class Host(Node):
    """One host. What is done to it lasts until it is undone; what is in memory only, to a reboot."""

    def __init__(
        self,
        claim: Claim,
        number: int,
        *,
        user: str,
        base: str | Path,
        key: Path,
        undo: ExitStack,
        layer: Path | None = None,
    ) -> None:
        super().__init__(claim, number, base, layer)
        self.user = user
        self._key = key
        self._undo = undo
        self._options: tuple[str, ...] = ()
        self._killed = False

    # -- its life ---------------------------------------------------------------------------------

    def install(self) -> None:
        """Lay out its disk, boot it for the first time, and let its user in."""
        self.disk.lay_out(name=self.name, address=self.address, user=self.user)
        make_key(self.disk.upper / HOST_KEY, f"root@{self.name}")
        self.boot()
        self._let_in(self.user, public(self._key))
        self._mount_layer()

    def boot(self) -> None:
        """Switch it on, and wait for the banner of its sshd."""
        if self._killed:
            raise MetalError(f"{self.name} was killed for good")
        self.power_on()
        try:
            until(self._answers, f"the sshd of {self.name}", BOOT_SECONDS)
        except MetalError as error:
            raise MetalError(f"{error}\n{self.sshd_log()}".strip()) from None
        # The one who asked is still being served, and counts: MaxStartups may be 1.
        until(lambda: len(self._sshds()) == 1, f"a quiet sshd on {self.name}", 10)

    def kill(self) -> None:
        """End it at once and for good; its address is dead."""
        self._killed = True
        self.power_off()

    def reboot(self) -> None:
        """Switch it off and on: the same disk, and nothing else of before, no cut and no rules."""
        self.power_off()
        self.boot()
        self._mount_layer()

    def _mount_layer(self) -> None:
        """Show its user the environments of a layer as their own, which they may change."""
        if self.layer is not None:
            self.run("sh", "-euc", LAYER, "sh", self.user)

    def _answers(self) -> bool:
        if not self.first:  # which raises when it has ended
            return False
        try:
            with socket.create_connection((self.address, 22), 2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    # -- its sshd ---------------------------------------------------------------------------------

    @property
    def host_key(self) -> str:
        """Return its public host key: the kind and the key, as known_hosts has them."""
        return " ".join(public(self.disk.upper / HOST_KEY).split()[:2])

    def sshd_log(self) -> str:
        """Return what its sshd has said since its first boot."""
        return (self.disk.upper / LOG).read_text(encoding="utf-8", errors="replace")

    def handshakes(self) -> int:
        """Return how many SSH connections were accepted since its first boot."""
        return self.sshd_log().count("Accepted publickey")

    def restart_sshd(self, *options: str) -> None:
        """End the listener and the sessions, and start again with these options, and only these."""
        self.run("/usr/sbin/sshd", "-t", *options)
        self._options = options
        text = f"SSHD_OPTS={shlex.quote(' '.join(options))}\n"
        (self.root / "etc/default/ssh").write_text(text, encoding="utf-8")
        for pid in self._sshds():
            if parent(pid) == self.first:
                kill(pid, signal.SIGSTOP)  # lest it starts a session that is not seen below
        self.end(self._sshds())
        until(self._listens, f"sshd {' '.join(options)} on {self.name}", 20)

    def new_host_key(self) -> None:
        """Give it another host key, from now on."""
        fresh = self.folder / "host-key"
        make_key(fresh, f"root@{self.name}")
        for suffix in ("", ".pub"):
            new = Path(f"{fresh}{suffix}")
            (self.root / f"{HOST_KEY}{suffix}").write_bytes(new.read_bytes())
            new.unlink()
        self.restart_sshd(*self._options)

    def _sshds(self) -> list[int]:
        found = []
        for pid in self.pids():
            name = (command_line(pid) or [""])[0]
            if name.startswith(("sshd:", "/usr/sbin/sshd")):
                found.append(pid)
        return found

    def _listens(self) -> bool:
        """Tell whether something listens on port 22, without connecting to it."""
        table = Path(f"/proc/{self.first}/net/tcp").read_text("ascii").splitlines()[1:]
        return any(row[1].endswith(":0016") and row[3] == "0A" for row in map(str.split, table))

    # -- its users --------------------------------------------------------------------------------

    def add_user(self, name: str) -> Path:
        """Add a user without sudo, and return the private key that lets them in."""
        key = self.folder / f"key-{name}"
        make_key(key, f"{name}@{self.name}")
        self._let_in(name, public(key))
        return key

    def forbid_login(self) -> None:
        """Let its user in no more; who is in, stays."""
        self._authorized_keys().rename(self._authorized_keys(".away"))

    def allow_login(self) -> None:
        """Let its user in again."""
        self._authorized_keys(".away").rename(self._authorized_keys())

    def _authorized_keys(self, suffix: str = "") -> Path:
        home = self.run("sh", "-c", "echo $HOME", user=self.user).stdout.strip()
        return self.root / home.lstrip("/") / f".ssh/authorized_keys{suffix}"

    def _let_in(self, user: str, key: str) -> None:
        self.run("sh", "-euc", ADD_USER, "sh", user, input=f"{key}\n")

    # -- its network and its disk -----------------------------------------------------------------

    def cut(self) -> None:
        """Pull its network cable."""
        sh("ip", "link", "set", self.name, "down")

    def mend(self) -> None:
        """Plug its network cable in again."""
        sh("ip", "link", "set", self.name, "up")
        self.await_link()

    def drop(self, port: int = 22) -> None:
        """Drop, unanswered, what is sent to a port of it."""
        self.in_network(*_rule("-I", port))

    def undrop(self, port: int = 22) -> None:
        """Let through again what is sent to a port of it."""
        self.in_network(*_rule("-D", port))

    def slow(self, seconds: float, port: int = 22) -> tuple[str, int]:
        """Return an address and a port that lead to it slowly, in each direction; to the end."""
        relay = Relay(self.claim.address(1), (self.address, port), seconds)
        self._undo.callback(relay.close)
        return relay.address

    def fill(self, path: str | Path, megabytes: int) -> None:
        """Mount a disk of its user's that has little room, until the next boot."""
        # The folders above it are the user's, where the user may make them.
        self.run("mkdir", "-p", str(path), user=self.user, check=False)
        self.run("sh", "-euc", FILL, "sh", self.user, str(path), str(megabytes))


def _rule(what: str, port: int) -> list[str]:
    return ["iptables", "-w", what, "INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP"]


def make_key(path: Path, comment: str) -> None:
    """Make a key pair."""
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def public(key: Path) -> str:
    """Return the public half of a key pair."""
    return Path(f"{key}.pub").read_text(encoding="utf-8").strip()
