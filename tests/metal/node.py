"""A computer of its own inside this one: it boots, runs programs, and loses power."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.metal.disk import INIT, Disk
from tests.metal.machine import (
    CLEAN,
    Claim,
    MetalError,
    await_end,
    child,
    command_line,
    default_mtu,
    kill,
    pids,
    sh,
    until,
)

BOOT = Path(__file__).with_name("boot.sh")
NAMESPACES = ["--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child"]
BOOT_SECONDS = 60.0  # it takes a fraction of one, where nothing else is going on


class Failed(subprocess.CalledProcessError):
    """A program ended with an error on a host; says what it wrote."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout}{self.stderr}"


def enter(first: int, argv: Iterable[str], user: str | None = None) -> list[str]:
    """Return the command that runs a program on a host, given its first process."""
    user = user or "root"
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
    return [
        *("nsenter", f"--target={first}", "--net", "--pid", "--mount", "--uts", "--ipc"),
        *(*become, "sh", "-c", 'cd && exec "$@"', "sh", *argv),
    ]


class Node:
    """Namespaces, a disk and a network card."""

    def __init__(
        self, claim: Claim, number: int, base: str | Path, layer: Path | None = None
    ) -> None:
        self.claim = claim
        self.number = number
        self.name = claim.host_name(number)
        self.address = claim.address(number)
        self.folder = claim.folder / self.name
        self.disk = Disk(self.folder, Path(base))
        self.layer = layer
        self._holder: subprocess.Popen[bytes] | None = None
        self._first = 0

    @property
    def alive(self) -> bool:
        return self._holder is not None and self._holder.poll() is None

    @property
    def first(self) -> int:
        """Return its first process, as this machine numbers it."""
        if not self.alive:
            log = (self.folder / "boot.log").read_text(encoding="utf-8", errors="replace")
            raise MetalError(f"{self.name} is not alive\n{log}".strip())
        return self._first

    @property
    def root(self) -> Path:
        """Return its root folder, while it is up; an absolute link in there leads out of it."""
        return Path(f"/proc/{self.first}/root")

    def power_on(self) -> None:
        """Start its first process and plug it in."""
        with (self.folder / "boot.log").open("ab") as log:
            self._holder = subprocess.Popen(
                [
                    "unshare",
                    *NAMESPACES,
                    "/bin/sh",
                    BOOT,
                    self.disk.base,
                    self.folder,
                    self.layer or "",
                ],
                cwd="/",
                env=CLEAN,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is not for it
            )
        until(lambda: self._has_mounted() or not self.alive, f"the start of {self.name}", 30)
        self._plug_in()

    def power_off(self) -> None:
        """End it at once. Nobody gets a farewell from it, as when the power goes."""
        sh("ip", "link", "delete", self.name, check=False)
        if self._holder is not None:
            if self.alive:
                kill(child(self._holder.pid) or self._holder.pid)
            self._holder.wait(timeout=30)

    def _has_mounted(self) -> bool:
        """Tell whether its first process is what it will remain."""
        if self._holder is not None:
            self._first = child(self._holder.pid)
        return INIT in command_line(self._first)

    def _plug_in(self) -> None:
        card = self.claim.card(self.number)
        sh(
            *("ip", "-batch", "-"),
            stdin=f"link add {self.name} type veth peer name eth0 address {card} netns {self.first}\n"
            f"link set {self.name} master {self.claim.bridge} up\n",
        )
        # The way out may be narrower than the bridge.
        self.in_network(
            *("ip", "-batch", "-"),
            stdin="link set lo up\nlink set eth0 up\n"
            f"address add {self.address}/24 dev eth0\n"
            f"route add default via {self.claim.address(1)} mtu {default_mtu()}\n",
        )
        self.await_link()

    def await_link(self) -> None:
        """Wait until the bridge forwards: what is sent before is lost, and a second with it."""
        port = Path(f"/sys/class/net/{self.name}/brport/state")
        until(lambda: port.read_text("ascii") == "3\n", f"the link of {self.name}", 10)

    def in_network(self, *argv: str, stdin: str = "") -> str:
        """Run a program of this machine in the network of the host."""
        return sh("nsenter", f"--target={self.first}", "--net", *argv, stdin=stdin)

    def run(
        self,
        *argv: str,
        user: str | None = None,
        input: str | None = None,  # noqa: A002
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on it, by default as root, in their home; not by SSH."""
        process = subprocess.Popen(
            enter(self.first, argv, user),
            env=CLEAN,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        with process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                # What runs on the host is of the same group, which nsenter alone would leave.
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if check and process.returncode:
            raise Failed(process.returncode, shlex.join(argv), out, err)
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def pids(self) -> list[int]:
        """Return its processes, as this machine numbers them."""
        mine = namespace(self.first)
        return [pid for pid in pids() if mine and namespace(pid) == mine]

    def processes(self) -> list[str]:
        """Return the command lines of its processes."""
        return [" ".join(argv) for pid in self.pids() if (argv := command_line(pid))]

    def end(self, processes: Iterable[int]) -> None:
        """Kill some of its processes, and wait until they are gone."""
        for pid in processes:
            kill(pid)
        for pid in processes:
            await_end(pid)


def namespace(pid: int) -> str:
    """Return the pid namespace of a process that has not ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
