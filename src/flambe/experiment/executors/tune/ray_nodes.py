"""The Ray nodes of a cluster, as a run on its orchestrator sees them: awaited, watched, revived."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray

from flambe.cluster.context import STALL_SECONDS
from flambe.cluster.services.ray_service import SILENCE, STARTS
from flambe.errors import RunError, counted
from flambe.experiment.executors.tune.deadlines import alone_seconds, join_seconds
from flambe.experiment.executors.tune.head_watch import HeadWatch
from flambe.runnable import RemoteEnvironment

LEASE_PERIOD, LEASE_SECONDS = 60.0, 300.0
MOST_AT_ONCE = 16  # factories that are talked to
PERIOD = 2.0  # seconds between two looks
REVIVE_PERIOD = 15.0  # seconds between two tries to start the node of a factory again
SSH_SECONDS = 40.0
NO_CONNECTION = 255  # the exit code of ssh


class Nodes:
    """The factories of a cluster.

    Parameters
    ----------
    env
        The cluster.
    note
        Told what people want to know.
    halt
        Ends the run for a reason.

    Attributes
    ----------
    head
        Watches the head of Ray.
    gave_up
        Why the run was ended, if it was.
    """

    def __init__(
        self,
        env: RemoteEnvironment,
        note: Callable[[str], None],
        halt: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.env = env
        self.note = note
        self.head = HeadWatch(self.address, halt)
        self.gave_up = ""
        self.expected = dict(zip(env.factories_names, env.factories_ips, strict=True))
        #: Those that people have been told of last.
        self._told = set(self.expected)
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
        """Return the names of the factories whose nodes live."""
        return set(_registered())

    def progressed(self) -> None:
        """Note that a trial came further: the factories are needed."""
        self._progress = time.monotonic()

    def hold(self) -> None:
        """Take leases on the factories: they do not end by themselves while the run needs them."""
        self._holder = threading.Thread(target=self._hold, name="flambe-leases", daemon=True)
        self._holder.start()

    def release(self) -> None:
        """Give the leases back."""
        self._released.set()
        if self._holder is not None:
            self._holder.join(SSH_SECONDS)

    def await_all(self) -> None:
        """Wait until every factory has joined.

        Raises
        ------
        RunError
            If one has not: it is named, with what its node said last.
        """
        deadline = time.monotonic() + join_seconds()
        while missing := sorted(self.expected.keys() - self.alive()):
            if time.monotonic() > deadline:
                reasons = "".join(f"\n{name}{self._why_missing(name)}" for name in missing)
                reasons += self._strangers()
                names = ", ".join(missing)
                raise RunError(f"these factories have not joined Ray: {names}{reasons}")
            time.sleep(0.1)

    # -- while the run goes on ----------------------------------------------------------------

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the factories: tell of those that are lost and back, and start what can be started.

        When there has been none for too long, the run is interrupted: see :attr:`gave_up`.
        """
        self.progressed()
        over = threading.Event()
        thread = threading.Thread(
            target=self._watch, args=(over,), name="flambe-nodes", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            if not self.head.gone:
                thread.join(PERIOD + SSH_SECONDS)

    def _watch(self, over: threading.Event) -> None:
        alone_since = None
        while not over.wait(PERIOD):
            if self.head.gone or not self.head.answers():
                continue  # asked then, Ray's core ends this process
            try:
                alive = self.alive()
            except Exception:  # Ray is going down, and the run with it
                return
            for name in sorted(alive - self._told):
                self.note(f"{name} has joined: {counted(len(alive), 'factory', 'factories')}")
            for name in sorted(self._told - alive):
                self.note(f"{name} is lost: {counted(len(alive), 'factory', 'factories')} left")
            self._told = alive
            self._revive(self.expected.keys() - alive)
            if alive or _orchestrator_works():
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()
                self.note(f"no factory is left; one has {alone_seconds():.0f} s to come back")
            elif time.monotonic() - alone_since > alone_seconds():
                self.gave_up = (
                    f"no factory was left, and none came back within {alone_seconds():.0f} s"
                )
                signal.pthread_kill(_main_thread(), signal.SIGTERM)
                return

    def _hold(self) -> None:
        """Renew the leases of the factories, while trials come further; then give them back."""
        while not self._released.is_set():
            if time.monotonic() - self._progress < float(os.environ.get(SILENCE, STALL_SECONDS)):
                self._lease(LEASE_SECONDS)
            self._released.wait(LEASE_PERIOD)
        self._lease(0.0)

    def _lease(self, seconds: float) -> None:
        """Take leases on all factories, for so long from now on."""
        content = json.dumps({"name": "run", "seconds": seconds})
        commands = {n: [*start["command"][:-1], "lease"] for n, start in _starts().items()}
        names = self.expected.keys() & commands.keys()
        with ThreadPoolExecutor(max_workers=MOST_AT_ONCE) as pool:
            list(pool.map(lambda n: self._on(n, shlex.join(commands[n]), content), names))

    def _revive(self, names: set[str]) -> None:
        """Start the nodes of factories that can be reached: one was started anew, for example."""
        now = time.monotonic()
        starts = _starts()
        for name in sorted(names & starts.keys() - self._reviving):
            if now - self._tried.get(name, -REVIVE_PERIOD) >= REVIVE_PERIOD:
                self._tried[name] = now
                self._reviving.add(name)
                # A thread for each: one that does not answer keeps none of the others waiting.
                threading.Thread(
                    target=self._revive_one, args=(name, starts[name]), daemon=True
                ).start()

    def _revive_one(self, name: str, start: Mapping[str, Any]) -> None:
        try:
            self._on(name, shlex.join(start["command"]), start["content"])
        finally:
            self._reviving.discard(name)

    def _why_missing(self, name: str) -> str:
        """Return why a factory has not joined: the end of the log of its node, if it has one."""
        log = _starts().get(name, {}).get("log")
        done = self._on(name, f"tail -n 15 {shlex.quote(log)}" if log else "true")
        if done is None or done.returncode == NO_CONNECTION:
            lines = done.stderr.strip().splitlines() if done is not None else []
            why = f": {lines[-1]}" if lines else ""
            return f" ({self.expected[name]}): it cannot be reached from the orchestrator{why}"
        lines = done.stdout.strip().splitlines() if log else []
        if not lines:
            return ": it is reached, and its Ray node has said nothing"
        return "".join(f"\n  | {line}" for line in lines)

    def _strangers(self) -> str:
        """Return which nodes Ray has that are not in the cluster, by the names that they have."""
        strangers = {
            name: address
            for name, address in _registered().items()
            if name not in self.expected and name not in _starts()
        }
        names = ", ".join(f"{name} ({address})" for name, address in sorted(strangers.items()))
        if not names:
            return ""
        return (
            f"\nRay has {names}, which is not in the cluster: its node runs under a name of an "
            "earlier file\n  the same command starts the nodes again, under the names of now"
        )

    def _on(
        self, name: str, command: str, content: str = ""
    ) -> subprocess.CompletedProcess[str] | None:
        """Run a command on a factory; return what it did, or None where it did not end."""
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
    """Whether the orchestrator runs variants too: then a run is never without a host."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return any("orchestrator" in resources and resources.get("CPU", 0) for resources in nodes)


def _registered() -> dict[str, str]:
    """Return the factories whose nodes live, as Ray knows them: name → address."""
    return {
        name: str(node["NodeManagerAddress"])
        for node in ray.nodes()
        if node["Alive"]
        for name in node["Resources"]
        if name.startswith("factory_")
    }


def _main_thread() -> int:
    identity = threading.main_thread().ident
    assert identity is not None
    return identity


def _starts() -> Mapping[str, Any]:
    """Return how the node of each factory is started, as it is known now: there may be new ones."""
    try:
        return dict(json.loads(Path(os.environ[STARTS]).read_text(encoding="utf-8")))
    except (KeyError, OSError, ValueError):
        return {}
