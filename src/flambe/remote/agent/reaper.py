"""What ends a host that nobody uses, so that nothing is left running and billed.

``python3 reaper.py SETTINGS`` runs on the host itself, from its boot on, and needs no credentials.
A host is idle when its processors and its GPUs have little to do, nobody types on it, and no lease
protects it. The file stands alone: a new machine is given it for its first boot. On machines that
stay, the command stops what flambe runs there.

The settings are JSON:

=================  =============================================================================
``timeout``        hours that the host may be idle; 0: as soon as that is seen twice, -1: for ever
``provisioning``   hours until it must be ready; if it is not, it ends whatever its timeout is
``ready``          a file that says that it is ready
``lease``          files (a pattern) that say until when it is needed: ``until``, since the epoch
``typing``         hours for which somebody who typed something counts as using it
``check``          seconds between two looks
``command``        what ends it
``log``, ``seen``  where its end is told, and what was seen at the last look
``cluster``        only what flambe runs for this cluster counts as use: the host is shared
``once``           whether the reaper ends when it has ended something
=================  =============================================================================
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

MARKER = "FLAMBE_SUPERVISED"  # in the environment of all that flambe runs; see supervisor.py
CHECK = 30.0
TYPING = 1.0
# What Ray, the site and the system do when nobody asks them for anything stays below these.
BUSY_CORES = 0.3
BUSY_GPU = 5.0


def main(path: str) -> int:
    """Watch this host until it is to end."""
    watch = Watch()
    while True:
        try:
            with open(path) as stream:
                settings = json.load(stream)
        except (OSError, ValueError):
            settings = {}  # it is being written
        if reason := watch.due(settings):
            end(settings, reason)
            if settings.get("once"):
                return 0
            time.sleep(60)  # if it could not be ended, it is tried again
        time.sleep(float(settings.get("check", CHECK)))


class Watch:
    """What was seen of this host up to now."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.idle_since: float | None = None
        self.idle_looks = 0
        self._processes: dict[tuple[int, str], float] | None = None
        self._looked = time.monotonic()

    def due(self, settings: dict[str, Any]) -> str:
        """Look once; return why the host is to end now, or nothing."""
        now = time.monotonic()
        busy = self._busy(now, settings.get("cluster", ""))
        if not settings:
            return ""
        if not os.path.exists(settings.get("ready", "/")):
            limit = float(settings.get("provisioning", -1.0)) * 3600
            if 0 <= limit < now - self.begun:
                return f"it was not ready within {limit / 3600:g} hours"
            return ""
        use = busy or gpus_in_use(settings.get("cluster", "")) or typed(settings)
        use = use or leased(settings)
        if use:
            self.idle_since, self.idle_looks = None, 0
            note(settings, {"idle": 0.0, "use": use})
            return ""
        self.idle_since = now if self.idle_since is None else self.idle_since
        self.idle_looks += 1
        idle, hours = now - self.idle_since, float(settings.get("timeout", -1.0))
        note(settings, {"idle": round(idle, 1), "use": ""})
        if hours < 0 or self.idle_looks < 2 or idle < hours * 3600:
            return ""
        return f"it was idle for {idle / 3600:.2f} hours"

    def _busy(self, now: float, cluster: str) -> str:
        """Return what the processors did since the last look, if that is more than a little."""
        times = processor_times(cluster)
        known = times if self._processes is None else self._processes
        used = sum(max(0.0, spent - known.get(process, 0.0)) for process, spent in times.items())
        cores = used / max(0.001, now - self._looked)
        self._processes, self._looked = times, now
        return f"{cores:.1f} processors are busy" if cores > BUSY_CORES else ""


def processor_times(cluster: str) -> dict[tuple[int, str], float]:
    """Return the seconds that each process and its ended children have used: (id, start) → seconds.

    With a cluster, of the processes that flambe runs for it.
    /proc/stat would tell more easily, but of the whole machine, where a host is a part of one.
    """
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and is_of(int(name), cluster):
            with (
                contextlib.suppress(OSError, IndexError, ValueError),
                open(f"/proc/{name}/stat") as stream,
            ):
                fields = stream.read().rpartition(")")[2].split()
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return [float(line) for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def typed(settings: dict[str, Any]) -> str:
    """Return whether somebody typed something on a terminal of this host not long ago."""
    limit = float(settings.get("typing", TYPING)) * 3600
    for terminal in glob.glob("/dev/pts/[0-9]*"):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(terminal).st_atime < limit:
                return "somebody is logged in"
    return ""


def leased(settings: dict[str, Any]) -> str:
    """Return whether a lease protects this host."""
    for path in glob.glob(settings.get("lease", "")):
        with contextlib.suppress(OSError, ValueError), open(path) as stream:
            if float(json.load(stream)["until"]) > time.time():
                return "a run needs it"
    return ""


def note(settings: dict[str, Any], seen: dict[str, Any]) -> None:
    """Write what was seen, for those who ask why the host is still up."""
    if path := settings.get("seen"):
        with contextlib.suppress(OSError):
            with open(f"{path}.part", "w") as stream:
                json.dump({**seen, "time": time.time()}, stream)
            os.replace(f"{path}.part", path)


def end(settings: dict[str, Any], reason: str) -> None:
    """End the host."""
    with contextlib.suppress(OSError, KeyError), open(settings["log"], "a") as stream:
        stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} flambe ends this host: {reason}\n")
    subprocess.run(settings["command"], stdin=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
