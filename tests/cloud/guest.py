"""The host that an instance is: a real one of tests.metal, which boots as an instance does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from tests.cloud.firewall import CHAIN
from tests.cloud.userdata import Plan
from tests.metal.disk import HERE as METAL
from tests.metal.disk import HOST_KEY, INIT
from tests.metal.host import ADD_USER, Host, make_key
from tests.metal.machine import Claim, MetalError, claim, sh, until

INSIDE = Path(__file__).with_name("inside")
CONSOLE = "var/log/console.log"
POWER = ("shutdown", "poweroff", "reboot", "halt")
TICKS = os.sysconf("SC_CLK_TCK")
# What unshare ends with when the first process of a host called reboot(2).
# https://man7.org/linux/man-pages/man2/reboot.2.html: "Behavior inside PID namespaces"
ENDED = {
    -signal.SIGINT: "poweroff",
    128 + signal.SIGINT: "poweroff",
    -signal.SIGHUP: "reboot",
    128 + signal.SIGHUP: "reboot",
}


class Rack:
    """The network that the hosts of a cloud are on, private and public, and the room for their disks."""

    def __init__(self) -> None:
        self.claim = claim()
        # Also when this object is forgotten, and when Python ends.
        self._last_resort = weakref.finalize(self, _give_back, self.claim, os.getpid())
        try:
            self.claim.build()
            sh("ip", "address", "add", f"{self.public(1)}/24", "dev", self.claim.bridge)
        except BaseException:
            self.down()
            raise

    def public(self, number: int) -> str:
        """Return a public address: of a range that is nobody's, and routed here only."""
        return f"198.18.{self.claim.number}.{number}"

    def down(self) -> None:
        """Remove the network, and all that is on it."""
        self._last_resort()


def _give_back(mine: Claim, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it
        mine.give_back()


class Guest(Host):
    """The host of one instance."""

    def __init__(
        self,
        rack: Rack,
        address: str,
        *,
        public: Callable[[], str],
        rules: Callable[[], str],
        user: str,
        plan: Plan,
        metadata_port: int,
        base: str | Path = "/",
    ) -> None:
        number = int(address.rpartition(".")[2])
        # What is left of an instance that had the address before.
        shutil.rmtree(rack.claim.folder / rack.claim.host_name(number), ignore_errors=True)
        super().__init__(
            rack.claim,
            number,
            user=user,
            base=base,
            key=Path(os.devnull),
            undo=contextlib.ExitStack(),
        )
        self.plan = plan
        self._public = public
        self._rules = rules
        self._metadata_port = metadata_port
        self._burnt = 0.0

    # -- its life ---------------------------------------------------------------------------------

    def install(self) -> None:
        """Lay out its disk and switch it on."""
        name = f"ip-{self.address.replace('.', '-')}"
        self.disk.lay_out(name=name, address=self.address, user=self.user)
        make_key(self.disk.upper / HOST_KEY, f"root@{name}")
        boot = (INSIDE / "boot.py").read_text(encoding="utf-8")
        power = (INSIDE / "power.py").read_text(encoding="utf-8")
        for program in POWER:
            self.disk.write(f"usr/sbin/{program}", power, 0o755)
        self.disk.write("usr/bin/systemctl", power, 0o755)
        self.disk.write("usr/sbin/guest-boot", boot, 0o755)
        self.disk.write("usr/sbin/guest-add-user", ADD_USER)
        self.disk.write("etc/default-user", f"{self.user}\n")
        self.disk.write("var/lib/cloud/seed/plan.json", json.dumps(self.plan.as_dict()), 0o600)
        self.disk.write(INIT.lstrip("/"), _init())
        self.boot()

    def boot(self) -> None:
        """Switch it on; nobody waits for its sshd, which comes when it comes."""
        self._burnt = 0.0
        self.power_on()

    def shut_down(self) -> None:
        """Let its programs end, and switch it off."""
        if self.alive:
            with contextlib.suppress(MetalError, subprocess.SubprocessError, OSError):
                self.run("sh", "-c", "kill -TERM -1", timeout=5, check=False)
                time.sleep(0.1)
        self.power_off()

    def remove(self) -> None:
        """Switch it off and delete its disk."""
        self.power_off()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ended(self) -> str:
        """Return how it ended by itself: ``poweroff``, ``reboot``, or ``lost``; "" while it is on."""
        if self._holder is None or self._holder.poll() is None:
            return ""
        return ENDED.get(self._holder.returncode, "lost")

    # -- what is looked at from outside -----------------------------------------------------------

    def console(self) -> str:
        """Return what was written on its console since its first boot."""
        try:
            return (self.disk.upper / CONSOLE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def booted(self) -> bool:
        """Tell whether all that its user data asks for is done."""
        return (self.disk.upper / "var/lib/cloud/instance/boot-finished").exists()

    def await_boot(self, seconds: float = 60) -> None:
        """Wait until its user data is done and its sshd answers."""
        until(lambda: self.booted() and self._answers(), f"the boot of {self.name}", seconds)

    def cpu_seconds(self) -> float:
        """Return how much its processes have computed since it was switched on."""
        try:
            total = sum(_burnt(pid) for pid in self.pids()) / TICKS
        except MetalError:
            total = 0.0
        # What a process had before it was reaped is nobody's for a moment.
        self._burnt = max(self._burnt, total)
        return self._burnt

    # -- its network ------------------------------------------------------------------------------

    def _plug_in(self) -> None:
        # Before there is a way out: this machine may have a metadata service of its own.
        target = f"{self.claim.address(1)}:{self._metadata_port}"
        rule = ["-d", "169.254.169.254", "-p", "tcp", "--dport", "80", "-j", "DNAT"]
        self.in_network(
            "iptables", "-w", "-t", "nat", "-A", "OUTPUT", *rule, "--to-destination", target
        )
        self.in_network("iptables-restore", "-w", "--noflush", stdin=self._rules())
        self.in_network("iptables", "-w", "-A", "INPUT", "-j", CHAIN)
        super()._plug_in()
        if public := self._public():
            self.in_network("ip", "address", "add", f"{public}/32", "dev", "eth0")

    def let_in(self) -> None:
        """Let in what its security groups let in by now; who is connected stays so."""
        if self.alive:
            with contextlib.suppress(MetalError):  # it may be ending
                self.in_network("iptables-restore", "-w", "--noflush", stdin=self._rules())


# Its first process holds the console open, so that nobody who writes there ever waits for a reader.
BOOTING = f"""\
mkfifo -m 600 /dev/console
exec 9<> /dev/console
cat <&9 >> /{CONSOLE} &
/usr/sbin/guest-boot early 9>&-
/usr/sbin/guest-boot late 9>&- &
"""


def _init() -> str:
    """Return the first program of a guest: that of a host, with what an instance does at boot."""
    text = (METAL / "init.sh").read_text(encoding="utf-8")
    start = text.index("while :;")
    return text[:start] + BOOTING + text[start:]


def _burnt(pid: int) -> int:
    """Return the clock ticks of a process and of the children that it has reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return sum(int(word) for word in text.rpartition(")")[2].split()[11:15])
