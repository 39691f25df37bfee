"""The Ray nodes of a cluster, as a run on its orchestrator sees them: awaited, watched, revived."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import ray

from flambe._retry import poll
from flambe.errors import RunError, counted
from flambe.experiment.executors.tune.factory_settings import (
    NodeStart,
    alone_seconds,
    join_seconds,
    read_starts,
    stall_seconds,
)
from flambe.experiment.executors.tune.head_watch import HeadWatch
from flambe.runnable import RemoteEnvironment

LEASE_PERIOD, LEASE_SECONDS = 60.0, 300.0
MAX_PARALLEL = 16  # factories that are contacted at a time
PERIOD = 2.0  # seconds between two checks
REVIVE_PERIOD = 15.0  # seconds between two attempts to start the node of a factory
SSH_SECONDS = 40.0
CONNECTION_FAILED = 255  # the exit code of ssh
LOG_LINES = 15  # of a node that has not joined, in an error


class RayNodeMonitor:
    """The factories of a cluster.

    Parameters
    ----------
    env
        The cluster.
    notify
        Called with messages for the user.
    halt
        Ends the run, for a reason.

    Attributes
    ----------
    head
        Watches the head of Ray.
    """

    def __init__(
        self,
        env: RemoteEnvironment,
        notify: Callable[[str], None],
        halt: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.env = env
        self.notify = notify
        self.head = HeadWatch(self.address, halt)
        self._halt = halt
        #: How many stages run, and what ends the thread that watches for all of them.
        self._stages = 0
        self._watching: tuple[threading.Thread, threading.Event] | None = None
        self._lock = threading.Lock()
        self.expected = dict(zip(env.factories_names, env.factories_ips, strict=True))
        #: The factories that the user was last told are alive.
        self._announced = set(self.expected)
        self._tried: dict[str, float] = {}
        self._reviving: set[str] = set()
        self._progress = time.monotonic()
        self._released = threading.Event()
        self._holder: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The address of Ray."""
        return os.environ["RAY_ADDRESS"]

    def alive(self) -> set[str]:
        """Return the names of the factories whose nodes are alive."""
        return set(_registered_factories())

    def on_progress(self) -> None:
        """Record that a trial made progress: the factories are needed."""
        self._progress = time.monotonic()

    def hold_leases(self) -> None:
        """Take leases on the factories: they do not shut down while the run needs them."""
        self._holder = threading.Thread(target=self._hold, name="flambe-leases", daemon=True)
        self._holder.start()

    def release_leases(self) -> None:
        """Return the leases."""
        self._released.set()
        if self._holder is not None:
            self._holder.join(SSH_SECONDS)

    def await_all(self) -> None:
        """Wait until every factory has joined Ray.

        Raises
        ------
        RunError
            If one does not in time: it is named, with the last lines of its node's log.
        """
        if poll(lambda: not self._missing(), seconds=join_seconds()):
            return
        missing = self._missing()
        reasons = "".join(f"\n{name}{self._why_missing(name)}" for name in missing)
        names = ", ".join(missing)
        raise RunError(
            f"these factories have not joined Ray: {names}{reasons}{self._unexpected_nodes()}"
        )

    def _missing(self) -> list[str]:
        return sorted(self.expected.keys() - self.alive())

    # -- during the run -----------------------------------------------------------------------

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the factories: announce those that are lost or come back, and restart nodes.

        When there has been no factory for too long, the run is interrupted. Several stages may be
        in here at the same time.
        """
        self.on_progress()
        with self._lock:
            self._stages += 1
            if self._watching is None:
                over = threading.Event()
                thread = threading.Thread(
                    target=self._watch, args=(over,), name="flambe-nodes", daemon=True
                )
                thread.start()
                self._watching = thread, over
        try:
            yield
        finally:
            watching = None
            with self._lock:
                self._stages -= 1
                if not self._stages:
                    watching, self._watching = self._watching, None
            if watching is not None:
                watching[1].set()
                if not self.head.gone:
                    watching[0].join(PERIOD + SSH_SECONDS)

    def _watch(self, over: threading.Event) -> None:
        alone_since: float | None = None
        while not over.wait(PERIOD):
            # Ray's core ends this process when it is called without a head: see test_cluster_life.
            if self.head.gone or not self.head.answers():
                continue
            try:
                alive = self.alive()
            except Exception:  # Ray is shutting down, and the run with it
                return
            self._announce(alive)
            self._revive(self.expected.keys() - alive)
            if alive or _orchestrator_works():
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
                self.notify(f"no factory is left; one has {alone_seconds():.0f} s to come back")
            elif time.monotonic() - alone_since > alone_seconds():
                seconds = f"{alone_seconds():.0f} s"
                self._halt(
                    f"no factory was left, and none came back within {seconds}\n"
                    "  finished variants are kept"
                )
                return

    def _announce(self, alive: set[str]) -> None:
        count = counted(len(alive), "factory", "factories")
        for name in sorted(alive - self._announced):
            self.notify(f"{name} has joined: {count}")
        for name in sorted(self._announced - alive):
            self.notify(f"{name} is lost: {count} left")
        self._announced = alive

    def _hold(self) -> None:
        """Renew the leases of the factories while trials make progress; then return them."""
        while not self._released.is_set():
            if time.monotonic() - self._progress < stall_seconds():
                self._lease(LEASE_SECONDS)
            self._released.wait(LEASE_PERIOD)
        self._lease(0.0)

    def _lease(self, seconds: float) -> None:
        """Take leases on all factories, for so long from now on."""
        content = json.dumps({"name": "run", "seconds": seconds})
        starts = read_starts()
        names = self.expected.keys() & starts.keys()
        with ThreadPoolExecutor(max_workers=MAX_PARALLEL) as pool:
            list(
                pool.map(
                    lambda n: self._run_on(n, shlex.join(starts[n].lease_command), content), names
                )
            )

    def _revive(self, names: set[str]) -> None:
        """Start the nodes of factories that can be reached: a host that rebooted, for example."""
        now = time.monotonic()
        starts = read_starts()
        for name in sorted(names & starts.keys() - self._reviving):
            if now - self._tried.get(name, -REVIVE_PERIOD) >= REVIVE_PERIOD:
                self._tried[name] = now
                self._reviving.add(name)
                # One thread each: a factory that does not answer must not delay the others.
                threading.Thread(
                    target=self._revive_one, args=(name, starts[name]), daemon=True
                ).start()

    def _revive_one(self, name: str, start: NodeStart) -> None:
        try:
            self._run_on(name, shlex.join(start.command), start.content)
        finally:
            self._reviving.discard(name)

    def _why_missing(self, name: str) -> str:
        """Return why a factory has not joined: the end of the log of its node, if it has one."""
        start = read_starts().get(name)
        log = start.log if start is not None else ""
        result = self._run_on(name, f"tail -n {LOG_LINES} {shlex.quote(log)}" if log else "true")
        if result is None or result.returncode == CONNECTION_FAILED:
            lines = result.stderr.strip().splitlines() if result is not None else []
            why = f": {lines[-1]}" if lines else ""
            return f" ({self.expected[name]}): it cannot be reached from the orchestrator{why}"
        lines = result.stdout.strip().splitlines() if log else []
        if not lines:
            return ": it can be reached, and its Ray node has logged nothing"
        return "".join(f"\n  | {line}" for line in lines)

    def _unexpected_nodes(self) -> str:
        """Return the nodes of Ray that are not in the cluster, for an error message."""
        starts = read_starts()
        unexpected = {
            name: address
            for name, address in _registered_factories().items()
            if name not in self.expected and name not in starts
        }
        names = ", ".join(f"{name} ({address})" for name, address in sorted(unexpected.items()))
        if not names:
            return ""
        return (
            f"\nRay has {names}, which is not in the cluster: its node runs under a name of an "
            "earlier file\n  the same command starts the nodes again, under their current names"
        )

    def _run_on(
        self, name: str, command: str, content: str = ""
    ) -> subprocess.CompletedProcess[str] | None:
        """Run a command on a factory; return its result, or None if it did not end in time."""
        *ssh, dashes, host = self.env.ssh(self.expected[name])
        try:
            return subprocess.run(
                [*ssh, "-o", "ConnectTimeout=10", dashes, host, command],
                input=content,
                capture_output=True,
                text=True,
                timeout=SSH_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return None


def _orchestrator_works() -> bool:
    """Whether the orchestrator runs variants too: then a run always has a host."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return any("orchestrator" in resources and resources.get("CPU", 0) for resources in nodes)


def _registered_factories() -> dict[str, str]:
    """Return the factories whose nodes are alive in Ray: name → address."""
    return {
        name: str(node["NodeManagerAddress"])
        for node in ray.nodes()
        if node["Alive"]
        for name in node["Resources"]
        if name.startswith("factory_")
    }
