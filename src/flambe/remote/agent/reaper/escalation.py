"""Ending a host: one step after another, each with a deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

from flambe.remote.agent.reaper.probe import Probe, Unreadable, reason_of, say
from flambe.remote.agent.reaper.settings import ReaperSettings, Step

# Of processes: in any other, which is a container's, the kernel is not the host's own.
FIRST_NAMESPACE = "pid:[4026531836]"


def end(settings: ReaperSettings, reason: str, is_needed: Callable[[], bool]) -> bool:
    """End the host, one step after the other; return whether what ends once only has succeeded.

    It returns too if the host is still there after the last step, or if it is needed again.
    """
    report(settings, f"flambe ends this host: {reason}")
    last = settings.steps[-1]
    for step in settings.steps:
        deadline = time.monotonic() + step.patience
        succeeded = take(step, deadline)
        if succeeded and settings.once:
            return True
        while time.monotonic() < deadline and (succeeded or step == last):
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        if is_needed():
            report(settings, "flambe: this host is needed again, and does not end")
            return False
        report(settings, f"flambe: this host did not end by {step}")
    return False


def take(step: Step, deadline: float) -> bool:
    """Take a step; return whether it succeeded. What has not ended by the deadline is killed."""
    if step.write:
        return write(step.write, step.text)
    started: list[subprocess.Popen[bytes]] = []
    patience = max(0.0, deadline - time.monotonic())

    def run() -> int:
        # Its own session: all of it can be killed.
        null = subprocess.DEVNULL
        started.append(subprocess.Popen(step.command, stdin=null, start_new_session=True))
        return started[0].wait()

    try:
        code = Probe("", run).ask(deadline=patience)
    except Exception as error:  # whatever it is, the next step is taken
        say(f"{step}: {reason_of(error)}")
        with contextlib.suppress(OSError, IndexError):
            os.killpg(started[0].pid, signal.SIGKILL)
        return False
    return code == 0


def write(path: str, text: str) -> bool:
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


def report(settings: ReaperSettings, text: str) -> None:
    """Log a step, and append it to the host's own log: a console may hang, too."""
    say(text)

    def append() -> None:
        with open(settings.log, "a") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    if settings.log:
        with contextlib.suppress(Exception):
            Probe("", append).ask(deadline=5.0)
