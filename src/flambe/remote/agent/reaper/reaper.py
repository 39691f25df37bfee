"""What ends a host that nobody uses, so that nothing is left running and billed.

``python3 reaper.py SETTINGS [FALLBACK]`` runs on the host itself, from its boot on, and needs no
credentials. A host is idle when its processors and its GPUs have little to do, nobody types on it,
and no lease protects it. A new machine is given it, with the few modules that it needs, for its
first boot. On machines that stay, the command stops what flambe runs there.

A look that finds processors or GPUs busy postpones the end by 19 times its length, and by the whole
timeout at most: what takes less than a twentieth of the time does not keep a host. A lease, and
somebody who types, begin the timeout again. Whatever hangs, the kernel's part of it too, is left
behind: a probe that does not answer counts as no use, and the end is asked for in other ways.

The settings are JSON. Where they cannot be read, those that were read last count, then FALLBACK.

=================  =============================================================================
``timeout``        hours that the host may be idle; 0: as soon as that is seen twice, -1: for ever
``provisioning``   hours until it must be ready; if it is not, it ends whatever its timeout is
``ready``          a file that says that it is ready
``lease``          files (a pattern) that say until when it is needed; see leases.py
``typing``         hours for which somebody who typed something counts as using it
``check``          seconds between two looks
``deadline``       seconds that a probe has: what hangs for longer counts as no use
``command``        what ends it
``patience``       seconds that the command has, until it is asked again, or the next step is taken
``escalate``       what is tried after that: each a ``command``, or a file to ``write`` a ``text``
                   to, and its ``patience``; nothing by default
``log``, ``seen``  where its end is told, and what was seen at the last look
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
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from flambe.remote.agent.files import boot_id, boot_seconds, publish_json, read_text
from flambe.remote.agent.reaper.escalation import end
from flambe.remote.agent.reaper.probe import DEADLINE, Probe, Unreadable
from flambe.remote.agent.reaper.settings import Settings

MARKER = "FLAMBE_SUPERVISED"  # in the environment of all that flambe runs; see supervisor.py
CHECK = 30.0
TYPING = 1.0
# What Ray, the site and the system do when nobody asks them for anything stays below these.
BUSY_CORES = 0.3
BUSY_GPU = 5.0
WEIGHT = 19.0  # seconds of idleness that make up for a second of use: 95 % of the time
GAP = 4.0  # checks: what was not looked at for longer is neither idle nor busy
LONGEST = 7 * 86400.0  # seconds that use counts for, where there is no timeout
LONGEST_LEASE = 3600.0  # seconds, of one that was taken before this boot


def main(path: str, fallback: str = "") -> int:
    """Watch this host until it is to end."""
    _lock = alone(path)
    settings, watch = Settings(path, fallback), Watch(f"{path}.state")
    while True:
        current = settings.read()
        watch.concern = settings.problem
        if (reason := watch.due(current)) and end(current, reason, watch):
            return 0
        time.sleep(float(current.get("check", CHECK)))


def alone(path: str) -> Any:
    """Wait until no other reaper has these settings."""
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
    """What is known of this host since it was started, whoever started the reaper again."""

    start: str
    begun: float  # when it was started, by boot_seconds()
    looked: float  # when it was looked at last
    unneeded: float = 0.0  # seconds since a run, or somebody who types, needed it
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
        self.concern = ""  # what else is wrong with the reaper
        self.idle_looks = 0
        self._processes: dict[tuple[int, str], float] | None = None
        self._looked = boot_seconds()
        self._times = Probe("processors", processor_times)
        self._gpus = Probe("GPUs", gpus_in_use)
        self._people = Probe("terminals", typed)
        self._leases = Probe("leases", leased)

    def due(self, settings: dict[str, Any]) -> str:
        """Look once; return why the host is to end now, or nothing."""
        now, state = boot_seconds(), self.state
        length = min(now - state.looked, GAP * float(settings.get("check", CHECK)))
        length *= self._processes is not None  # what they did before the first look is not known
        busy = self._busy(settings)
        if not settings:
            return ""
        state.looked = now
        reason = self._unready(now, settings)
        if reason is None:
            reason = self._idle(settings, busy, length)
        if self.path:
            publish_json(self.path, asdict(state))
        return reason

    def is_ready(self, settings: dict[str, Any]) -> bool:
        """Whether somebody said that the host is ready, if that is to be said."""
        return os.path.exists(settings.get("ready", "/"))

    def needed(self, settings: dict[str, Any]) -> str:
        """Return who needs this host whatever it computes, if anybody does."""
        deadline = deadline_of(settings)
        use = self._leases("", settings, deadline=deadline)
        use = use or self._people("", settings, deadline=deadline)
        if not use and self._leases.problem and lease_left():
            use = "a run needs it"
        return str(use)

    def _unready(self, now: float, settings: dict[str, Any]) -> str | None:
        """Return whether the host should be ready by now and is not; None if it is ready."""
        if self.is_ready(settings):
            return None
        limit = float(settings.get("provisioning", -1.0)) * 3600
        late = 0 <= limit < now - self.state.begun
        return f"it was not ready within {limit / 3600:g} hours" if late else ""

    def _idle(self, settings: dict[str, Any], busy: str, length: float) -> str:
        """Return whether the host was idle for long enough."""
        hours, state = float(settings.get("timeout", -1.0)), self.state
        limit = LONGEST if hours < 0 else hours * 3600
        state.unneeded += length
        if use := self.needed(settings):
            state.unneeded = state.owed = 0.0
        elif use := busy or self._gpu_use(settings):
            state.owed += WEIGHT * length
        else:
            state.owed -= length
        state.owed = max(0.0, min(state.owed, limit))
        self.idle_looks = 0 if use else self.idle_looks + 1
        left = max(limit - state.unneeded, state.owed, 0.0)
        problems = [probe.problem for probe in (self._times, self._gpus, self._leases)]
        seen = {
            "idle": round(limit - left, 1),
            "use": use,
            "problems": [problem for problem in [*problems, self.concern] if problem],
        }
        note(settings, seen)
        if hours < 0 or self.idle_looks < 2 or left > 0:
            return ""
        return f"it was idle for {state.unneeded / 3600:.2f} hours"

    def _gpu_use(self, settings: dict[str, Any]) -> str:
        """Return what the GPUs do, if that is more than a little and can be read."""
        cluster = settings.get("cluster", "")
        return str(self._gpus("", cluster, deadline=deadline_of(settings)))

    def _busy(self, settings: dict[str, Any]) -> str:
        """Return what the processors did since the last look, if that is more than a little."""
        cluster = settings.get("cluster", "")
        times = self._times(None, cluster, deadline=deadline_of(settings))
        now, then, known = boot_seconds(), self._looked, self._processes
        if times is None:
            return ""
        self._processes, self._looked = times, now
        known = times if known is None else known
        used = sum(max(0.0, spent - known.get(process, 0.0)) for process, spent in times.items())
        cores = used / max(0.001, now - then)
        return f"{cores:.1f} processors are busy" if cores > BUSY_CORES else ""


def deadline_of(settings: dict[str, Any]) -> float:
    """Return the seconds that a probe has until it is left behind."""
    return float(settings.get("deadline", DEADLINE))


def processor_times(cluster: str) -> dict[tuple[int, str], float]:
    """Return the seconds that each process and its ended children have used: (id, start) → seconds.

    With a cluster, of the processes that flambe runs for it.
    /proc/stat would tell more easily, but of the whole machine, where a host is a part of one.
    """
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and is_of(int(name), cluster):
            with contextlib.suppress(IndexError, ValueError):  # it has ended
                fields = read_text(f"/proc/{name}/stat").rpartition(")")[2].split()
                found[int(name), fields[19]] = sum(map(int, fields[11:15])) / tick
    return found


def is_of(process: int, cluster: str) -> bool:
    """Whether flambe runs a process for a cluster; without one, every process counts."""
    if not cluster:
        return True
    try:
        with open(f"/proc/{process}/environ", "rb") as stream:
            words = stream.read().split(b"\0")
    except OSError:  # it is somebody else's
        return False
    heads = tuple(f"{MARKER}={cluster}{sign}".encode() for sign in ".-")
    return any(word.startswith(heads) for word in words)


def gpus_in_use(cluster: str) -> str:
    """Return which GPUs have something to do, if any have; with a cluster, whether it holds some.

    How much of a GPU each process uses is not told by all drivers.
    """
    held = asked_of_gpus("compute-apps=pid") if cluster else []
    if cluster:
        ours = sum(is_of(int(pid), cluster) for pid in held)
        return f"{ours} processes hold GPUs" if ours else ""
    most = max(asked_of_gpus("gpu=utilization.gpu"), default=0.0)
    return f"a GPU is at {most:.0f} %" if most > BUSY_GPU else ""


def asked_of_gpus(what: str) -> list[float]:
    """Return what nvidia-smi answers to a query; nothing, where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-{what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unreadable("no answer") from error
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise Unreadable(f"nvidia-smi failed: {''.join(last) or done.returncode}")
    return [float(line) for line in done.stdout.split() if line.replace(".", "", 1).isdigit()]


# Terminal → its time of access, and when it was seen; the path of a lease, and its end → that end:
# in seconds since the boot.
_typed_at: dict[str, tuple[float, float]] = {}
_lease_ends: dict[tuple[str, float], float] = {}


def typed(settings: dict[str, Any]) -> str:
    """Return whether somebody typed something on a terminal of this host not long ago."""
    limit, now = float(settings.get("typing", TYPING)) * 3600, boot_seconds()
    use = ""
    for terminal in glob.glob("/dev/pts/[0-9]*"):
        with contextlib.suppress(OSError):
            accessed = os.stat(terminal).st_atime
            if _typed_at.get(terminal, (None, 0.0))[0] != accessed:
                age = max(0.0, time.time() - accessed)
                _typed_at[terminal] = accessed, now - age
            if now - _typed_at[terminal][1] < limit:
                use = "somebody is logged in"
    return use


def leased(settings: dict[str, Any]) -> str:
    """Return whether a lease protects this host."""
    now, boot = boot_seconds(), boot_id()
    ends = {}
    for path in glob.glob(settings.get("lease", "")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            lease = json.loads(read_text(path))
            until = float(lease["until"])
            if lease.get("boot") == boot:
                ends[path, until] = float(lease["clock"])
                continue
            # It tells the time of day only: that is asked once, as the clock may be set.
            left = min(until - time.time(), LONGEST_LEASE)
            ends[path, until] = _lease_ends.get((path, until), now + left)
    _lease_ends.clear()
    _lease_ends.update(ends)
    return "a run needs it" if lease_left() else ""


def lease_left() -> bool:
    """Whether a lease, as it was read last, still protects this host."""
    return any(end > boot_seconds() for end in list(_lease_ends.values()))


def note(settings: dict[str, Any], seen: dict[str, Any]) -> None:
    """Write what was seen, for those who ask why the host is still up."""
    if path := settings.get("seen"):
        publish_json(path, {**seen, "time": time.time()})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
