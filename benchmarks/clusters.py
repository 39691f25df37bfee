"""What flambe's clusters cost, on real hosts of this machine, beside what others need for the same.

``warm``: a cluster that is ready is found to be ready, beside ``ray up`` of a Ray cluster that is up
on the same hosts, and beside a bare ``ssh`` to each host at once. ``many``: one command on 16 hosts,
beside parallel-ssh and pyinfra. ``files``: 300 MB to four hosts, beside one rsync to one host.
``cold``: hosts that have nothing are given their packages.

All hosts share the processors of this machine: what would run on several machines at once takes
turns here. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import itertools
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
from flambe.cluster import SSHCluster
from flambe.cluster.cluster_host import ClusterHost
from flambe.packaging.wheel import wheel_of
from flambe.remote import each
from tests.metal import Metal, missing
from tests.metal.host import Host
from tests.metal.machine import MetalError, sh, until

REPEATS = 5
# What takes long is done less often.
MOST_COPIES, MOST_SLOW, MOST_COLD, MOST_RESTARTS = 2, 1, 1, 2
RAY_TARGET = 0.1
SSH_TARGET = 5.0
FILES_TARGET = 2.0
# Packages are downloaded once, whatever the number of hosts; the rest is noise.
DOWNLOAD_TARGET = 1.05

MANY = 16
COPIED, COPIED_SIZE = 3000, 100_000
# Of the client that is far from its hosts.
SLOW_LINK = 250  # Mbit/s
MEGA = 1e6

# How parallel-ssh does it: with connections of its own, new ones or those that it has.
_PARALLEL_SSH = """
import json, sys, time
from pssh.clients import ParallelSSHClient
key, user, *hosts = sys.argv[1:]
def client():
    return ParallelSSHClient(hosts, user=user, pkey=key)
def hostnames(one):
    begun = time.perf_counter()
    names = {line for host in one.run_command("hostname") for line in host.stdout}
    assert len(names) == len(hosts), names
    return time.perf_counter() - begun
kept = client()
hostnames(kept)
for line in sys.stdin:
    print(json.dumps({"s": hostnames(client() if line.strip() == "new" else kept)}), flush=True)
"""
_NUMBERS = itertools.count(1)


# -- hosts ----------------------------------------------------------------------------------------


class Hosts:
    """Real hosts, the file of a cluster of them, and ways to reach them.

    Parameters
    ----------
    folder
        The benchmark's own.
    count
        How many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.name = f"bench-{os.getpid()}-{next(_NUMBERS)}"
        self.file = folder / f"{self.name}.yaml"
        self.known = folder / f"{self.name}.known"
        self.metal = Metal(count)

    def __enter__(self) -> Hosts:
        self.metal.up()
        self.file.write_text(self.metal.cluster_yaml(self.name), encoding="utf-8")
        keys = [f"{host.address} {host.host_key}\n" for host in self]
        self.known.write_text("".join(keys), encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        finally:
            self.metal.down()

    def __iter__(self) -> Iterator[Host]:
        return iter(self.metal.hosts)

    @property
    def addresses(self) -> list[str]:
        """The addresses, the orchestrator's first."""
        return [host.address for host in self]

    @functools.cached_property
    def cluster(self) -> SSHCluster:
        """The cluster in this process; its hosts are connected when they are used."""
        first, *others = self.addresses
        key, user = str(self.metal.key), self.metal.user
        cluster = SSHCluster(self.name, first, others, key=key, username=user)
        machines = cluster.find_machines()
        cluster.hosts = tuple([ClusterHost(m, cluster.local, cluster.remote_dir) for m in machines])
        return cluster

    def close(self) -> None:
        """End flambe's connections."""
        for member in self.cluster.hosts:
            member.connection.close()

    def ssh(self) -> list[str]:
        """Return an ``ssh`` that connects anew, as people write it."""
        options = ["BatchMode=yes", "IdentitiesOnly=yes", f"UserKnownHostsFile={self.known}"]
        words = [word for option in options for word in ("-o", option)]
        return ["ssh", "-i", str(self.metal.key), "-l", self.metal.user, *words]

    def handshakes(self) -> tuple[list[int], list[int]]:
        """Return how many SSH connections each host accepted: from this machine, and from all."""
        mine = f" from {self.metal.gateway} port "
        logs = [host.sshd_log().splitlines() for host in self]
        return (
            [sum("Accepted" in line and mine in line for line in log) for log in logs],
            [host.handshakes() for host in self],
        )


class Counter:
    """Counts the bytes of packets, by rules of iptables in a chain of its own.

    Parameters
    ----------
    hook
        A chain of iptables, and which packets of it are looked at.
    rules
        Which of those are counted, each on its own.
    """

    def __init__(self, hook: Sequence[str], rules: Sequence[Sequence[str]]) -> None:
        self.chain = f"bench-{os.getpid()}-{next(_NUMBERS)}"
        self.hook = [*hook, "-j", self.chain]
        self.rules = rules

    def __enter__(self) -> Counter:
        sh("iptables", "-w", "-N", self.chain)
        for rule in self.rules:
            sh("iptables", "-w", "-A", self.chain, *rule)
        sh("iptables", "-w", "-I", *self.hook)
        return self

    def __exit__(self, *error: object) -> None:
        for what in (["-D", *self.hook], ["-F", self.chain], ["-X", self.chain]):
            sh("iptables", "-w", *what, check=False)

    def reset(self) -> None:
        """Begin anew."""
        sh("iptables", "-w", "-Z", self.chain)

    def read(self) -> list[int]:
        """Return the bytes that each rule counted."""
        rows = sh("iptables", "-w", "-vxnL", self.chain).splitlines()[2:]
        return [int(row.split()[1]) for row in rows]


class Lab:
    """The folder of the benchmark, and the hosts that several sections use."""

    def __init__(self, folder: Path, undo: contextlib.ExitStack) -> None:
        self.folder = folder
        self.undo = undo

    @functools.cached_property
    def ready(self) -> Hosts:
        """One orchestrator and three factories; making them ready is the first cold run."""
        hosts = self.undo.enter_context(Hosts(self.folder, 4))
        wheel_of("flambe")  # built once for each state of the code: no matter of the hosts
        flambe(hosts.file)
        self.first_handshakes = hosts.handshakes()
        return hosts


def program(name: str) -> str:
    """Return a program of this environment."""
    return str(Path(sysconfig.get_path("scripts"), name))


def flambe(*arguments: object) -> tuple[float, str]:
    """Run the command; return the seconds, and what it printed."""
    return common.timed([program("flambe"), *map(str, arguments)], stdin=subprocess.DEVNULL)


def section(title: str) -> None:
    """Print the title of a section."""
    print(f"\n== {title}\n", flush=True)


def times(found: Mapping[str, Sequence[float]], head: str) -> None:
    """Print seconds, of each round beside those of the last row."""
    *_, last = found.values()
    common.table(
        [head, "seconds", "times the last row"],
        [
            [name, common.spread(values, 1, 2), common.spread(common.ratios(values, last), 1, 2)]
            for name, values in found.items()
        ],
    )
    print()


def middle(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of the rounds."""
    return statistics.median(common.ratios(ours, theirs))


# -- warm -----------------------------------------------------------------------------------------

ALIVE, CLOSED = "flambe cluster.yaml", "  its connections closed before"
RAY, RAY_CLOSED = "ray up --no-restart -y", "  its connections closed before "
RAY_AGAIN = "ray up -y (Ray is restarted)"
SSH = "ssh host true, all at once"


class RayCluster:
    """A Ray cluster on hosts that flambe gave their Ray, by Ray's own launcher.

    Parameters
    ----------
    hosts
        The hosts; the first is the head.
    folder
        Where the launcher keeps its things.
    """

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts = hosts
        self.file = folder / "ray.yaml"
        self.ray = f"~/.flambe/envs/{hosts.cluster.local.recall().environment}/bin/ray"
        (folder / "ray").mkdir()
        places = dict.fromkeys(("HOME", "TMPDIR", "RAY_TMPDIR"), str(folder / "ray"))
        self.environment = {**os.environ, **places}
        self.file.write_text(json.dumps(self._settings()), encoding="utf-8")
        # The launcher's sockets are in /tmp, whatever TMPDIR says.
        digest = hashlib.sha256(hosts.name.encode()).hexdigest()[:10]
        self.sockets = f"ray_ssh_*/{digest}"

    def _settings(self) -> dict[str, Any]:
        head, *workers = self.hosts.addresses
        start = f"{self.ray} start --num-cpus=1 --object-store-memory=100000000"
        config = "--autoscaling-config=~/ray_bootstrap_config.yaml"
        user, key = self.hosts.metal.user, str(self.hosts.metal.key)
        return {
            "cluster_name": self.hosts.name,
            "provider": {"type": "local", "head_ip": head, "worker_ips": workers},
            "auth": {"ssh_user": user, "ssh_private_key": key},
            "head_start_ray_commands": [
                f"{self.ray} stop",
                f"{start} --head --port=6379 --include-dashboard=false {config}",
            ],
            "worker_start_ray_commands": [
                f"{self.ray} stop",
                f"{start} --address=$RAY_HEAD_IP:6379",
            ],
        }

    def up(self, *options: str, closed: bool = False) -> float:
        """Call ``ray up``; return the seconds."""
        if closed:
            self.close()
        command = [program("ray"), "up", *options, "-y", str(self.file)]
        return common.took(command, env=self.environment, stdin=subprocess.DEVNULL, timeout=180)

    def await_workers(self) -> None:
        """Wait for the workers: the head brings them in, one after another."""
        # The autoscaler of Ray 2.60 stops one short of them; ``ray up`` asks the head alone.
        most = len(self.hosts.addresses)
        until(lambda: self._nodes() >= most - 1, "the workers of Ray", 60)
        time.sleep(2)  # what has started just now is busy

    def _nodes(self) -> int:
        # Nodes that are busy or idle stand there by their number and kind.
        done = self._on(self.hosts.metal.hosts[0], "status", check=False)
        kind = " local.cluster.node"
        lines = [line.strip() for line in done.splitlines() if line.endswith(kind)]
        return sum(int(line.split()[0]) for line in lines)

    def _on(self, host: Host, *arguments: str, check: bool = True) -> str:
        command = f"{self.ray} {shlex.join(arguments)}"
        return host.run("sh", "-c", command, user=host.user, check=check, timeout=90).stdout

    def close(self) -> None:
        """End the connections of the launcher."""
        for folder in Path("/tmp").glob(self.sockets):
            for socket in folder.iterdir():
                command = ["ssh", "-S", str(socket), "-O", "exit", "host"]
                subprocess.run(command, capture_output=True, check=False, timeout=30)

    def down(self) -> None:
        """End Ray on the hosts, and remove what the launcher left here."""
        self.close()
        for folder in Path("/tmp").glob(self.sockets):
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
        for host in self.hosts:
            self._on(host, "stop", "--force", check=False)


def made_ready(hosts: Hosts, *, closed: bool = False) -> float:
    """Run ``flambe cluster.yaml`` where all is in place; return the seconds."""
    for _ in range(4):
        if closed:
            hosts.close()
        seconds, said = flambe(hosts.file)
        # Where the code was edited meanwhile, there was something to do; that does not count.
        if "everything is in place" in said:
            return seconds
    raise RuntimeError("there is always something to do: is the code being edited?")


def plain_ssh(hosts: Hosts) -> float:
    """Log in to all hosts at once, anew, and out; return the seconds."""
    begun = time.perf_counter()
    started = [
        subprocess.Popen([*hosts.ssh(), address, "true"], stdin=subprocess.DEVNULL)
        for address in hosts.addresses
    ]
    codes = [process.wait(60) for process in started]
    seconds = time.perf_counter() - begun
    if any(codes):
        raise RuntimeError(f"ssh to {hosts.addresses} ended with {codes}")
    return seconds


@contextlib.contextmanager
def ray_cluster(lab: Lab) -> Iterator[RayCluster | None]:
    """Bring up a Ray cluster; None, and why is printed, if Ray cannot."""
    made = RayCluster(lab.ready, lab.folder)
    there: RayCluster | None = made
    try:
        try:
            made.up()
            made.await_workers()
        except (RuntimeError, MetalError, subprocess.TimeoutExpired) as error:
            print(f"not run: ray up, which is not possible on these hosts: {error}\n")
            there = None
        yield there
    finally:
        made.down()


def warm(lab: Lab, repeats: int) -> None:
    """Measure a cluster that is ready."""
    section("warm: a cluster of 1+3 hosts that is ready")
    hosts = lab.ready
    runs: dict[str, Callable[[], float]] = {
        ALIVE: partial(made_ready, hosts),
        CLOSED: partial(made_ready, hosts, closed=True),
    }
    with ray_cluster(lab) as ray:
        if ray is not None:
            runs[RAY] = partial(ray.up, "--no-restart")
            runs[RAY_CLOSED] = partial(ray.up, "--no-restart", closed=True)
        runs[SSH] = partial(plain_ssh, hosts)
        found = common.rounds(runs, repeats)
        times(found, "command")
        if ray is not None:
            _against_ray(found, hosts, ray, min(repeats, MOST_RESTARTS))
    for name, ours in (("alive", ALIVE), ("closed", CLOSED)):
        ratio = middle(found[ours], found[SSH])
        verdict = common.verdict(ratio, SSH_TARGET)
        print(f"flambe, connections {name} / parallel ssh: {verdict}")
    mine, every = lab.first_handshakes
    print(f"SSH handshakes from here in the first, cold run, per host: {_listed(mine)}, target 1")
    print(f"  and with those of the hosts among themselves: {_listed(every)}")


def _against_ray(
    found: Mapping[str, Sequence[float]], hosts: Hosts, ray: RayCluster, repeats: int
) -> None:
    """Print how flambe does beside Ray's launcher."""
    for name, ours, theirs in (("alive", ALIVE, RAY), ("closed", CLOSED, RAY_CLOSED)):
        verdict = common.verdict(middle(found[ours], found[theirs]), RAY_TARGET)
        print(f"flambe / ray up --no-restart, connections {name}: {verdict}")
    print("  (which logs in to the head alone, for one command; flambe asks and proves every host)")
    runs: dict[str, Callable[[], float]] = {
        ALIVE: partial(made_ready, hosts),
        RAY_AGAIN: ray.up,
    }
    again = common.rounds(runs, repeats, warm=False)
    ratio, seconds = middle(again[ALIVE], again[RAY_AGAIN]), common.spread(again[RAY_AGAIN], 1, 2)
    print(f"flambe / {RAY_AGAIN}: {ratio:.2f}x, no target; Ray took {seconds} s")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


# -- many -----------------------------------------------------------------------------------------


def each_host(hosts: Hosts, *, closed: bool) -> float:
    """Run one command on each host from this process; return the seconds."""
    if closed:
        hosts.close()
    begun = time.perf_counter()
    done = each(lambda member: member.run(["hostname"]), hosts.cluster.hosts)
    seconds = time.perf_counter() - begun
    assert len({result.stdout for result in done}) == len(done)
    return seconds


def execute(hosts: Hosts, *, closed: bool) -> float:
    """Run one command on each host by ``flambe exec``; return the seconds."""
    if closed:
        hosts.close()
    return flambe("exec", hosts.file, "--all", "--", "hostname")[0]


def peers(folder: Path) -> Path | None:
    """Install parallel-ssh and pyinfra; return their environment, None if that fails."""
    place, uv = folder / "peers", [sys.executable, "-m", "uv"]
    install = [*uv, "pip", "install", "--quiet", "--system-certs", "--python", str(place)]
    try:
        common.took([*uv, "venv", "--quiet", str(place)], timeout=60)
        common.took([*install, "parallel-ssh", "pyinfra"], timeout=180)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"not run: parallel-ssh and pyinfra, which cannot be installed: {error}\n")
        return None
    home = place / "home" / ".ssh"
    home.mkdir(parents=True)
    (home / "known_hosts").touch()  # pyinfra wants it
    return place


def many(lab: Lab, repeats: int) -> None:
    """Measure one command on many hosts."""
    section(f"many: hostname on {MANY} hosts")
    runs: dict[str, Callable[[], float]] = {}
    with contextlib.ExitStack() as undo:
        hosts = undo.enter_context(Hosts(lab.folder, MANY))
        for suffix, closed in (("", False), (", new connections", True)):
            runs[f"each(host.run){suffix}"] = partial(each_host, hosts, closed=closed)
            runs[f"flambe exec --all{suffix}"] = partial(execute, hosts, closed=closed)
        if place := peers(lab.folder):
            runs |= _parallel_ssh(hosts, place, undo)
            runs["pyinfra exec, new connections"] = _pyinfra(hosts, place)
        runs[SSH] = partial(plain_ssh, hosts)
        times(common.rounds(runs, repeats), "command")
    print("each and parallel-ssh: in a process that stands; the others are commands")


def _parallel_ssh(
    hosts: Hosts, place: Path, undo: contextlib.ExitStack
) -> dict[str, Callable[[], float]]:
    """Return what measures parallel-ssh, in a process of its own."""
    script = place / "hostnames.py"
    script.write_text(_PARALLEL_SSH, encoding="utf-8")
    standing = common.Standing(
        str(script), hosts.metal.key, hosts.metal.user, *hosts.addresses,
        python=str(place / "bin" / "python"),
    )  # fmt: skip
    undo.callback(standing.close)
    return {
        "parallel-ssh": lambda: float(standing.ask("kept")["s"]),
        "parallel-ssh, new connections": lambda: float(standing.ask("new")["s"]),
    }


def _pyinfra(hosts: Hosts, place: Path) -> Callable[[], float]:
    """Return what measures pyinfra's command."""
    command = [str(place / "bin" / "pyinfra"), "-y", "--ssh-user", hosts.metal.user]
    command += ["--ssh-key", str(hosts.metal.key), ",".join(hosts.addresses)]
    environment = {**os.environ, "HOME": str(place / "home")}
    return partial(common.took, [*command, "exec", "--", "hostname"], env=environment)


# -- files ----------------------------------------------------------------------------------------

SENT, COPIED_BY_RSYNC = "cluster.files.send, to 4 hosts", "rsync, to 1 host"
TARGET, PLAIN = "bench-sent", "bench-plain"


class Copies:
    """A folder that is sent, and who sends it.

    Parameters
    ----------
    hosts
        Where it is sent to.
    source
        The folder; it is made.
    counter
        Counts what leaves this machine for each host.
    """

    def __init__(self, hosts: Hosts, source: Path, counter: Counter) -> None:
        self.hosts = hosts
        self.source = source
        self.counter = counter
        self.left: list[list[int]] = []  # bytes for each host, in each sending
        self.edits = 0
        for number in range(COPIED):
            path = self._path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(COPIED_SIZE))

    def _path(self, number: int) -> Path:
        return self.source / f"{number // 100:02}" / f"{number:04}"

    def edit(self, _: str) -> None:
        """Alter one file; always the same."""
        path = self._path(COPIED // 2)
        path.write_bytes(os.urandom(COPIED_SIZE))
        # rsync takes no notice of an edit that changes neither the size nor the second.
        self.edits += 1
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + self.edits))

    def remove(self, place: str) -> None:
        """Remove the copies in a place."""
        for host in self.hosts:
            host.run("rm", "-rf", place, user=host.user)

    def send(self, before: Callable[[str], None]) -> float:
        """Send it by flambe; return the seconds."""
        before(TARGET)
        self.counter.reset()
        begun = time.perf_counter()
        self.hosts.cluster.files.send(self.source, TARGET)
        seconds = time.perf_counter() - begun
        self.left.append(self.counter.read())
        return seconds

    def rsync(self, before: Callable[[str], None]) -> float:
        """Send it to one host by rsync; return the seconds."""
        before(PLAIN)
        shell = shlex.join(self.hosts.ssh())
        place = f"{self.hosts.addresses[0]}:{PLAIN}/"
        return common.took(["rsync", "-a", "-e", shell, f"{self.source}/", place])

    def rounds(self, before: Callable[[str], None], repeats: int) -> dict[str, list[float]]:
        """Measure both in turn, after something was done to the folder or to the copies."""
        self.left.clear()
        runs = {SENT: partial(self.send, before), COPIED_BY_RSYNC: partial(self.rsync, before)}
        return common.rounds(runs, repeats, warm=False)

    def told(self) -> str:
        """Say what left this machine: to the orchestrator, and to all factories."""
        first = common.spread([left[0] for left in self.left], 1 / MEGA, 2)
        others = common.spread([sum(left[1:]) for left in self.left], 1 / MEGA, 3)
        return f"MB that left this machine: {first} to the orchestrator, {others} to the factories"

    def factor(self) -> float:
        """Return how many times the folder left this machine."""
        return statistics.median(map(sum, self.left)) / (COPIED * COPIED_SIZE)


@contextlib.contextmanager
def slow_link(bridge: str) -> Iterator[bool]:
    """Limit what leaves this machine for the hosts, and not what they send one another."""
    limit = ["tbf", "rate", f"{SLOW_LINK}mbit", "burst", "256kb", "latency", "50ms"]
    try:
        sh("tc", "qdisc", "add", "dev", bridge, "root", *limit)
    except (MetalError, FileNotFoundError) as error:
        print(f"not run: a slow link of the client: {error}")
        yield False
        return
    try:
        yield True
    finally:
        sh("tc", "qdisc", "delete", "dev", bridge, "root", check=False)


def files(lab: Lab, repeats: int) -> None:
    """Measure many files to several hosts."""
    hosts = lab.ready
    section(f"files: {COPIED * COPIED_SIZE / MEGA:.0f} MB in {COPIED} files to 1+3 hosts")
    each(lambda member: member.refresh(hosts.name), hosts.cluster.hosts)
    bridge = hosts.metal.claim.bridge
    rules = [["-d", address] for address in hosts.addresses]
    with Counter(["OUTPUT", "-o", bridge], rules) as counter:
        copies = Copies(hosts, lab.folder / "files", counter)
        found = copies.rounds(copies.remove, min(repeats, MOST_COPIES))
        times(found, "all files")
        ratio = middle(found[SENT], found[COPIED_BY_RSYNC])
        print(f"flambe to 4 hosts / rsync to 1: {common.verdict(ratio, FILES_TARGET)}")
        print(f"what left this machine / the files: {common.verdict(copies.factor(), 1.05)}")
        print(f"{copies.told()}\n")
        times(copies.rounds(copies.edit, repeats), "after an edit of one file")
        print(f"{copies.told()}\n")
        with slow_link(bridge) as limited:
            if limited:
                _slowly(copies, min(repeats, MOST_SLOW))
        copies.remove(TARGET)
        copies.remove(PLAIN)


def _slowly(copies: Copies, repeats: int) -> None:
    """Measure with a client that is far away: this machine's processors matter less then."""
    found = copies.rounds(copies.remove, repeats)
    times(found, f"all files, at {SLOW_LINK} Mbit/s from here")
    ratio = middle(found[SENT], found[COPIED_BY_RSYNC])
    print(f"flambe to 4 hosts / rsync to 1, slow link: {common.verdict(ratio, FILES_TARGET)}")


# -- cold -----------------------------------------------------------------------------------------


def cold(lab: Lab, repeats: int) -> None:
    """Measure hosts that have nothing."""
    section("cold: hosts that have nothing are given their environment")
    wheel_of("flambe")
    few, more = "1+1 hosts", "1+3 hosts"
    taken: dict[str, list[float]] = {few: [], more: []}

    def once(name: str, count: int) -> float:
        with Hosts(lab.folder, count) as hosts:
            claim = hosts.metal.claim
            inward = ["FORWARD", "-o", claim.bridge]
            with Counter(inward, [["!", "-s", claim.network]]) as counter:
                seconds, _ = flambe(hosts.file)
                taken[name] += counter.read()
        return seconds

    runs = {few: partial(once, few, 2), more: partial(once, more, 4)}
    found = common.rounds(runs, min(repeats, MOST_COLD), warm=False)
    common.table(
        ["flambe cluster.yaml", "seconds", "MB from outside"],
        [[n, common.spread(found[n]), common.spread(taken[n], 1 / MEGA)] for n in found],
    )
    print(f"\nseconds, {more} / {few}: {middle(found[more], found[few]):.2f}x, no target")
    ratio = middle(taken[more], taken[few])
    print(f"MB from outside, {more} / {few}: {common.verdict(ratio, DOWNLOAD_TARGET)}")


SECTIONS = {"warm": warm, "many": many, "files": files, "cold": cold}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description="Measure flambe's clusters on real hosts.")
    made.add_argument("--only", choices=SECTIONS, help="this section alone")
    made.add_argument("--repeats", type=int, default=REPEATS, help="rounds (%(default)s)")
    return made


def main() -> None:
    """Measure and print."""
    options = parser().parse_args()
    if os.geteuid() != 0:
        print("not run: needs root")
        return
    if packages := missing():
        print(f"not run: needs {', '.join(packages)}")
        return
    print(common.machine())
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="flambe-")))
        os.environ["FLAMBE_HOME"] = str(folder / "home")
        lab = Lab(folder, undo)
        for name, measure in SECTIONS.items():
            if options.only in (None, name):
                measure(lab, options.repeats)


if __name__ == "__main__":
    main()
