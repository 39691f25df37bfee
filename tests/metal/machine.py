"""What is taken from this machine for hosts, and given back, by whoever is still there to do it.

Everything that one Metal has carries the number of its network, so that nothing else needs to be
remembered: hosts are found by their folder, links by their name, rules of iptables by what they say.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOM = Path("/var/tmp/metal")  # on a real disk: what is installed on the hosts is kept there
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
# Nothing of the environment of whoever starts a host may reach it.
CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

T = TypeVar("T")


class MetalError(Exception):
    """This machine, or a host on it, did not do what it should."""


def sh(*argv: str, stdin: str = "", check: bool = True) -> str:
    """Run a program of this machine, and return what it printed."""
    done = subprocess.run(
        argv, input=stdin, text=True, capture_output=True, check=False, timeout=60, env=CLEAN
    )
    if check and done.returncode:
        raise MetalError(f"{shlex.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def until(condition: Callable[[], T], what: str, seconds: float) -> T:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise MetalError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


# -- processes ------------------------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on; of none, nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # a name may hold anything


def parent(pid: int) -> int:
    """Return the parent of a process, or 0."""
    return int((_stat(pid) or "Z0")[1])


def started(pid: int) -> str:
    """Return when a process was started, which with its number names it for good; or ""."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


def pids() -> list[int]:
    """Return the processes of this machine, those of the hosts included."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def command_line(pid: int) -> list[str]:
    """Return the command line of a process; a zombie has none."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return data.decode(errors="replace").rstrip("\0").split("\0") if data else []


def child(pid: int) -> int:
    """Return the only child of a process, or 0."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()[0])
    except (OSError, IndexError):
        return 0


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def await_end(pid: int) -> None:
    """Wait until a process is gone, or only waits for its parent to notice."""
    until(lambda: not started(pid), f"the end of process {pid}", 30)


# -- networks -------------------------------------------------------------------------------------


def default_mtu() -> int:
    """Return how large the packets are that this machine can send to the world."""
    words = sh("ip", "-o", "route", "show", "default").split()
    name = words[words.index("dev") + 1] if "dev" in words else "lo"
    return int(Path(f"/sys/class/net/{name}/mtu").read_text("ascii"))


def links() -> list[str]:
    """Return the names of the network interfaces of this machine."""
    lines = sh("ip", "-o", "link", "show").splitlines()
    return [line.split(": ")[1].partition("@")[0] for line in lines]


@dataclass(frozen=True)
class Claim:
    """What one Metal has of this machine, all of it by one number."""

    number: int

    @property
    def folder(self) -> Path:
        return ROOM / str(self.number)

    @property
    def bridge(self) -> str:
        return f"metal{self.number}"

    @property
    def network(self) -> str:
        return f"10.213.{self.number}.0/24"

    def address(self, host: int) -> str:
        return f"10.213.{self.number}.{host}"

    def card(self, host: int) -> str:
        """Return the hardware address of a host: the same after a reboot, as neighbours expect."""
        return f"02:0a:d5:{self.number:02x}:00:{host:02x}"

    def host_name(self, host: int) -> str:
        return f"{self.bridge}-{host}"

    def make(self, **state: Any) -> None:
        """Make the folder; nobody sees it without its state."""
        beside = self.folder.with_suffix(".new")
        beside.mkdir(mode=0o700, exist_ok=True)
        self._write(beside, **state)
        beside.rename(self.folder)

    def keep(self) -> None:
        """Let it outlive this process."""
        self._write(self.folder, kept=True)

    def _write(self, folder: Path, **state: Any) -> None:
        state |= {"bridge": self.bridge, "network": self.network}
        beside = folder / "state.json.new"
        beside.write_text(json.dumps(state), encoding="utf-8")
        beside.replace(folder / "state.json")

    def read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.folder / "state.json").read_bytes())
        except (OSError, ValueError):
            return {}  # it was being removed
        return state

    @property
    def kept(self) -> bool:
        return bool(self.read().get("kept"))

    @property
    def orphan(self) -> bool:
        """Tell whether nobody is left to give it back."""
        state = self.read()
        return not state.get("kept") and started(state.get("pid", 0)) != state.get("started", "?")

    def rules(self) -> list[list[str]]:
        """Return the rules of iptables: the hosts reach the world, whatever else is forbidden."""
        nat = ["-s", self.network, "!", "-d", self.network, "-j", "MASQUERADE"]
        return [
            ["nat", "POSTROUTING", *nat],
            ["filter", "FORWARD", "-i", self.bridge, "-j", "ACCEPT"],
            ["filter", "FORWARD", "-o", self.bridge, "-j", "ACCEPT"],
        ]

    def build(self) -> None:
        """Make the bridge, with this machine on it as the gateway, and the rules."""
        # Without an address of its own it takes that of one of its links, and changes it with them.
        sh("ip", "link", "add", self.bridge, "address", self.card(1), "type", "bridge")
        sh("ip", "address", "add", f"{self.address(1)}/24", "dev", self.bridge)
        sh("ip", "link", "set", self.bridge, "up")
        for table, chain, *rule in self.rules():
            sh("iptables", "-w", "-t", table, "-I", chain, *rule)

    def hosts(self) -> dict[str, int]:
        """Return the hosts that are alive: name → the ``unshare`` that holds its first process."""
        found = {}
        for pid in pids():
            argv = command_line(pid)
            if argv and argv[0] == "unshare" and Path(argv[-1]).parent == self.folder:
                found[Path(argv[-1]).name] = pid
        return found

    def unbuild(self) -> None:
        """Remove everything but the folder; what is gone already is fine."""
        holders = self.hosts().values()
        for pid in holders:
            kill(child(pid) or pid)
        for pid in holders:
            # It ends when every process of the host has.
            await_end(pid)
        for name in links():
            if name == self.bridge or name.startswith(f"{self.bridge}-"):
                sh("ip", "link", "delete", name, check=False)
        for table, chain, *rule in self.rules():
            sh("iptables", "-w", "-t", table, "-D", chain, *rule, check=False)

    def give_back(self) -> None:
        """Remove all that there is of it."""
        if self.folder.exists():
            self.unbuild()
            with _locked():
                gone = self._put_aside()
            _remove_in_background(gone)

    def _put_aside(self) -> Path:
        """Move its folder out of the way: to remove it takes minutes, and others wait for the lock."""
        gone = ROOM.with_name(f"{ROOM.name}-gone-{os.getpid()}-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):  # somebody was quicker
            self.folder.rename(gone)
        return gone


def claims() -> list[Claim]:
    """Return what all Metals of this machine have."""
    names = os.listdir(ROOM) if ROOM.exists() else []
    return [Claim(int(name)) for name in sorted(names) if name.isdigit()]


def claim() -> Claim:
    """Claim the next free network for this process, once what the dead left is cleaned up."""
    gone = [path for path in ROOM.parent.glob(f"{ROOM.name}-gone-*") if not _has_owner(path)]
    with _locked():
        for other in claims():
            if other.orphan:
                other.unbuild()
                gone.append(other._put_aside())
        taken = {other.number for other in claims()}
        there = links()  # of a folder that somebody removed, for one
        free = [n for n in range(1, 255) if n not in taken and Claim(n).bridge not in there]
        if not free:
            raise MetalError("every network of 10.213.0.0/16 is taken")
        mine = Claim(free[0])
        mine.make(pid=os.getpid(), started=started(os.getpid()))
        before = ROOM / "ip_forward"
        if not before.exists():
            before.write_bytes(FORWARD.read_bytes())
            FORWARD.write_text("1", encoding="ascii")
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return mine


_removals: list[subprocess.Popen[bytes]] = []


def _remove_in_background(folder: Path) -> None:
    """Remove a folder while the next tests run: with all that was installed it takes long.

    This process waits for it at its end; where it is killed, the removal goes on.
    """
    _removals[:] = [removal for removal in _removals if removal.poll() is None]
    command = ["nice", "rm", "-rf", "--", str(folder)]
    _removals.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True))


@atexit.register
def _await_removals() -> None:
    for removal in _removals:
        removal.wait()


def _has_owner(gone: Path) -> bool:
    """Tell whether who put something aside is still there to remove it."""
    return bool(started(int(gone.name.split("-")[-2])))


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the one lock of all Metals of this machine; the last one puts out the light."""
    lock = until(_try_lock, f"the lock in {ROOM}", 120)
    try:
        yield
    finally:
        if not claims():
            before = ROOM / "ip_forward"
            if before.exists():
                FORWARD.write_bytes(before.read_bytes())
            shutil.rmtree(ROOM, ignore_errors=True)
        os.close(lock)


def _try_lock() -> int:
    """Return the lock, as a file that is open, or 0."""
    lock = 0
    try:
        ROOM.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(ROOM / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before may have removed it with the folder.
        if os.stat(ROOM / "lock").st_ino == os.fstat(lock).st_ino:
            return lock
    except (FileNotFoundError, BlockingIOError):
        pass
    if lock:
        os.close(lock)
    return 0
