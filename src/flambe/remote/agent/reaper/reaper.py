"""Ends a host that is not used, so that nothing is left running and billed.

``python3 reaper.py SETTINGS [FALLBACK]`` runs on the host itself, from its boot on, and needs no
credentials. A host is idle when its processors and its GPUs have little to do, no person types on
it, and no lease protects it. A new machine is given it, with the few modules that it needs, for its
first boot. On machines that stay, the command stops what flambe runs there.

A look that finds processors or GPUs busy postpones the end by 19 times its length, and by the whole
timeout at most: what takes less than a twentieth of the time does not keep a host. A lease, and
a person who types, begin the timeout again. Whatever hangs, the kernel's part of it too, is left
behind: a probe that does not answer counts as no use, and the end is asked for in other ways.

The settings are JSON. Where they cannot be read, those that were read last count, then FALLBACK.

=================  =============================================================================
``timeout``        hours that the host may be idle; 0: as soon as that is seen twice, -1: for ever
``provisioning``   hours until it must be ready; if it is not, it ends whatever its timeout is
``ready``          a file that says that it is ready
``lease``          files (a pattern) that say until when it is needed; see leases.py
``typing``         hours for which a person who typed something counts as using it
``check``          seconds between two looks
``deadline``       seconds that a probe has: what hangs for longer counts as no use
``command``        what ends it
``patience``       seconds that the command has, until it is asked again, or the next step is taken
``escalate``       what is tried after that: each a ``command``, or a file to ``write`` a ``text``
                   to, and its ``patience``; nothing by default
``log``, ``seen``  where its end is logged, and what was observed at the last look
``cluster``        only what flambe runs for this cluster counts as use: the host is shared
``once``           whether the reaper ends when its command has succeeded
=================  =============================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TextIO

from flambe._nvidia_smi import Query
from flambe.remote.agent.files import boot_id, boot_seconds, publish_json, read_text
from flambe.remote.agent.reaper.escalation import end
from flambe.remote.agent.reaper.probe import Probe
from flambe.remote.agent.reaper.settings import Observation, ReaperSettings, SettingsFile

MARKER = "FLAMBE_SUPERVISED"  # in the environment of all that flambe runs; see supervisor.py
NEEDED = "a run needs it"
# The idle load of Ray, the site and the system stays below these.
BUSY_CORES = 0.3
BUSY_GPU = 5.0
GPU_DEADLINE = 30.0  # seconds
WEIGHT = 19.0  # seconds of idleness that make up for a second of use: 95 % of the time
GAP = 4.0  # checks: what was not looked at for longer is neither idle nor busy
LONGEST = 7 * 86400.0  # seconds that use counts for, without a timeout
LONGEST_LEASE = 3600.0  # seconds, of one that was taken before this boot


def main(path: str, fallback: str = "") -> int:
    """Watch this host until it is to end."""
    _lock = wait_until_alone(path)
    file, watch = SettingsFile(path, fallback), Watch(f"{path}.state")
    while True:
        settings = file.read()
        watch.concern = file.problem
        if (reason := watch.due(settings)) and settings is not None:
            is_needed = watch.is_needed if watch.is_ready() else watch.is_ready
            if end(settings, reason, is_needed):
                return 0
        time.sleep(settings.check if settings else ReaperSettings.check)


def wait_until_alone(path: str) -> TextIO | None:
    """Wait until no other reaper has these settings; return what holds their lock."""
    try:
        lock = open(f"{path}.lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # the disk is full; two do no harm
        return None
    return lock


def start_id() -> str:
    """Return what changes when the host is started again, or the container that it is."""
    return f"{boot_id()} {' '.join(read_text('/proc/1/stat').rpartition(')')[2].split()[19:20])}"


# -- what is seen -------------------------------------------------------------------------------


@dataclass
class State:
    """What is known of this host since it was started, also by a reaper before this one."""

    start: str
    begun: float  # when it was started, by boot_seconds()
    looked: float  # when it was looked at last
    unneeded: float = 0.0  # seconds since a run, or a person who types, needed it
    owed: float = 0.0  # seconds that it must be idle to make up for what was busy

    @classmethod
    def load(cls, path: str) -> State:
        """Return what was saved since the host was started, or a new one."""
        start, now = start_id(), boot_seconds()
        try:
            state = cls(**json.loads(read_text(path)))
            numbers = [state.begun, state.looked, state.unneeded, state.owed]
            if state.start == start and all(0 <= float(n) < math.inf for n in numbers):
                return state
        except (ValueError, TypeError):
            pass
        return cls(start, now, now)


class Watch:
    """What was seen of this host up to now."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.state = State.load(path)
        self.settings = ReaperSettings()
        self.concern = ""  # what else is wrong with the reaper
        self.idle_looks = 0
        self.terminals = Terminals()
        self.leases = Leases()
        self._processes: dict[tuple[int, str], float] | None = None
        self._looked = boot_seconds()
        self._times = Probe("processors", lambda: processor_times(self.settings.cluster))
        self._gpus = Probe("GPUs", lambda: gpus_in_use(self.settings.cluster))
        self._people = Probe("terminals", lambda: self.terminals.use(self.settings.typing))
        self._runs = Probe("leases", lambda: self.leases.use(self.settings.lease))

    def due(self, settings: ReaperSettings | None) -> str:
        """Look once; return why the host is to end now, or nothing."""
        self.settings = settings or ReaperSettings()
        now, state = boot_seconds(), self.state
        length = min(now - state.looked, GAP * self.settings.check)
        length *= self._processes is not None  # what they did before the first look is not known
        busy = self._busy()
        if settings is None:
            return ""
        state.looked = now
        reason = self._unready(now)
        if reason is None:
            reason = self._idle(busy, length)
        if self.path:
            publish_json(self.path, asdict(state))
        return reason

    def is_ready(self) -> bool:
        """Whether the host was reported to be ready, if that is to be reported."""
        return not self.settings.ready or os.path.exists(self.settings.ready)

    def is_needed(self) -> bool:
        """Whether a run or a person needs this host, whatever it computes."""
        return bool(self._needed())

    def _needed(self) -> str:
        deadline = self.settings.deadline
        use = self._runs.read("", deadline) or self._people.read("", deadline)
        if not use and self._runs.problem and self.leases.is_any_left():
            use = NEEDED
        return use

    def _unready(self, now: float) -> str | None:
        """Return whether the host should be ready by now and is not; None if it is ready."""
        if self.is_ready():
            return None
        limit = self.settings.provisioning * 3600
        late = 0 <= limit < now - self.state.begun
        return f"it was not ready within {limit / 3600:g} hours" if late else ""

    def _idle(self, busy: str, length: float) -> str:
        """Return whether the host was idle for long enough."""
        hours, state = self.settings.timeout, self.state
        limit = LONGEST if hours < 0 else hours * 3600
        state.unneeded += length
        if use := self._needed():
            state.unneeded = state.owed = 0.0
        elif use := busy or self._gpus.read("", self.settings.deadline):
            state.owed += WEIGHT * length
        else:
            state.owed -= length
        state.owed = max(0.0, min(state.owed, limit))
        self.idle_looks = 0 if use else self.idle_looks + 1
        left = max(limit - state.unneeded, state.owed, 0.0)
        self._publish(round(limit - left, 1), use)
        if hours < 0 or self.idle_looks < 2 or left > 0:
            return ""
        return f"it was idle for {state.unneeded / 3600:.2f} hours"

    def _publish(self, idle: float, use: str) -> None:
        """Write what was seen, for those who ask why the host is still up."""
        if self.settings.seen:
            problems = [probe.problem for probe in (self._times, self._gpus, self._runs)]
            problems = [problem for problem in [*problems, self.concern] if problem]
            observation = Observation(idle, use, problems, time.time())
            publish_json(self.settings.seen, observation.to_json())

    def _busy(self) -> str:
        """Return what the processors did since the last look, if that is more than a little."""
        times = self._times.read({}, self.settings.deadline)
        now, then = boot_seconds(), self._looked
        if self._times.problem:
            return ""
        before = times if self._processes is None else self._processes
        self._processes, self._looked = times, now
        used = sum(max(0.0, spent - before.get(process, 0.0)) for process, spent in times.items())
        cores = used / max(0.001, now - then)
        return f"{cores:.1f} processors are busy" if cores > BUSY_CORES else ""


def processor_times(cluster: str) -> dict[tuple[int, str], float]:
    """Return the seconds that each process and its ended children have used: (id, start) → seconds.

    With a cluster, of the processes that flambe runs for it.
    /proc/stat would be simpler, but is of the whole machine, where a host is a part of one.
    """
    tick = os.sysconf("SC_CLK_TCK")
    times = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and is_of(int(name), cluster):
            with contextlib.suppress(IndexError, ValueError):  # it has ended
                fields = read_text(f"/proc/{name}/stat").rpartition(")")[2].split()
                times[int(name), fields[19]] = sum(map(int, fields[11:15])) / tick
    return times


def is_of(process: int, cluster: str) -> bool:
    """Whether flambe runs a process for a cluster; without one, every process counts."""
    if not cluster:
        return True
    try:
        with open(f"/proc/{process}/environ", "rb") as stream:
            variables = stream.read().split(b"\0")
    except OSError:  # it is another user's
        return False
    heads = tuple(f"{MARKER}={cluster}{sign}".encode() for sign in ".-")
    return any(variable.startswith(heads) for variable in variables)


def gpus_in_use(cluster: str) -> str:
    """Return which GPUs have something to do, if any have; with a cluster, whether it holds some.

    Not all drivers report how much of a GPU each process uses.
    """
    if cluster:
        ours = sum(is_of(int(pid), cluster) for pid in query_gpus("compute-apps=pid"))
        return f"{ours} processes hold GPUs" if ours else ""
    most = max(query_gpus("gpu=utilization.gpu"), default=0.0)
    return f"a GPU is at {most:.0f} %" if most > BUSY_GPU else ""


def query_gpus(query: str) -> list[float]:
    """Return the numbers that nvidia-smi answers to a query; nothing, where there is none."""
    rows = Query(query).rows(GPU_DEADLINE)
    return [float(row[0]) for row in rows if row[0].replace(".", "", 1).isdigit()]


class Terminals:
    """The terminals of this host: when something was typed on each, by the clock of the boot."""

    def __init__(self) -> None:
        # Terminal → its time of access, and when that was first seen.
        self._typed: dict[str, tuple[float, float]] = {}

    def use(self, hours: float) -> str:
        """Return whether a person has typed something in the last hours."""
        now, use = boot_seconds(), ""
        for terminal in glob.glob("/dev/pts/[0-9]*"):
            with contextlib.suppress(OSError):
                accessed = os.stat(terminal).st_atime
                if self._typed.get(terminal, (None, 0.0))[0] != accessed:
                    age = max(0.0, time.time() - accessed)
                    self._typed[terminal] = accessed, now - age
                if now - self._typed[terminal][1] < hours * 3600:
                    use = "a user is logged in"
        return use


class Leases:
    """The leases of this host: until when each lasts, by the clock of the boot."""

    def __init__(self) -> None:
        self.ends: dict[tuple[str, float], float] = {}  # (path, its end by the time of day)

    def use(self, pattern: str) -> str:
        """Read the leases; return whether one protects this host."""
        now, boot = boot_seconds(), boot_id()
        ends = {}
        for path in glob.glob(pattern):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                lease = json.loads(read_text(path))
                until = float(lease["until"])
                if lease.get("boot") == boot:
                    ends[path, until] = float(lease["clock"])
                    continue
                # It has the time of day only: that is read once, as the clock may be set.
                left = min(until - time.time(), LONGEST_LEASE)
                ends[path, until] = self.ends.get((path, until), now + left)
        self.ends = ends
        return NEEDED if self.is_any_left() else ""

    def is_any_left(self) -> bool:
        """Whether a lease, as it was read last, still protects this host."""
        return any(end > boot_seconds() for end in self.ends.values())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
