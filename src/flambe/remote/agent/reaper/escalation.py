"""How a host is ended: by one way after another, each with a deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from flambe.remote.agent.reaper.probe import Probe, Unreadable, reason_of, say
from flambe.remote.agent.reaper.settings import steps

if TYPE_CHECKING:
    from flambe.remote.agent.reaper.reaper import Watch

PATIENCE = 60.0
# Of processes: in any other, which is a container's, the kernel is not the host's own.
FIRST_NAMESPACE = "pid:[4026531836]"


def end(settings: dict[str, Any], reason: str, watch: Watch) -> bool:
    """End the host, one step after the other; return whether what ends once only has succeeded.

    It comes back too if the host is still there after the last, or if somebody needs it again.
    """
    tell(settings, f"flambe ends this host: {reason}")
    was_ready, last = watch.is_ready(settings), steps(settings)[-1]
    for step in steps(settings):
        deadline = time.monotonic() + float(step.get("patience", PATIENCE))
        done = do(step, deadline)
        if done and settings.get("once"):
            return True
        while time.monotonic() < deadline and (done or step == last):
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        if watch.needed(settings) if was_ready else watch.is_ready(settings):
            tell(settings, "flambe: this host is needed again, and does not end")
            return False
        tell(settings, f"flambe: this host did not end by {name_of(step)}")
    return False


def name_of(step: dict[str, Any]) -> str:
    """Return what a step does, for people."""
    return step["write"] if "write" in step else " ".join(step["command"])


def do(step: dict[str, Any], deadline: float) -> bool:
    """Do a step; return whether it succeeded. What has not ended by the deadline is killed."""
    if "write" in step:
        return wrote(step["write"], step["text"])
    started: list[subprocess.Popen[bytes]] = []
    patience = max(0.0, deadline - time.monotonic())

    def run() -> int:
        # Its own session: all of it can be killed.
        command, null = step["command"], subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdin=null, start_new_session=True))
        return started[0].wait()

    try:
        code = Probe("", run).ask(deadline=patience)
    except Exception as error:  # whatever it is, the next step is taken
        say(f"{name_of(step)}: {reason_of(error)}")
        with contextlib.suppress(OSError, IndexError):
            os.killpg(started[0].pid, signal.SIGKILL)
        return False
    return bool(code == 0)


def wrote(path: str, text: str) -> bool:
    """Write a text to a file; to one of the kernel's only where the kernel is this host's own."""
    kernel = os.path.realpath(path).startswith(("/proc/", "/sys/"))
    try:
        if kernel and os.readlink("/proc/self/ns/pid") != FIRST_NAMESPACE:
            raise Unreadable("this host is a container")
        with open(path, "w") as stream:
            stream.write(text)
    except (OSError, Unreadable) as error:
        say(f"{path}: {reason_of(error)}")
        return False
    return True


def tell(settings: dict[str, Any], text: str) -> None:
    """Say something where the end of a host is told: a console may hang, too."""
    say(text)

    def append() -> None:
        with open(settings["log"], "a") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    if "log" in settings:
        with contextlib.suppress(Exception):
            Probe("", append).ask(deadline=5.0)
