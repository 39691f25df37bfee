"""The boot of a host: cloud-init and package managers finish before anything is installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time

# What apt and dpkg lock; their timers start with a boot, and unattended-upgrades too.
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
FLOCK = "hhqqi"  # struct flock of Linux
POLL = 0.5
FAILED = (1, 2)  # of `cloud-init status`: an error, and one that it recovered from


def wait(seconds: float, locks: tuple[str, ...] = LOCKS) -> None:
    """Wait until a host has booted, for a limited time; print what is waited for, and what failed.

    Parameters
    ----------
    seconds
        How long in all.
    locks
        The files that package managers lock.
    """
    deadline = time.monotonic() + seconds
    _wait_for_cloud_init(deadline)
    for path in locks:
        _wait_for_lock(path, deadline)


def _wait_for_cloud_init(deadline: float) -> None:
    program = shutil.which("cloud-init")
    if program is None:
        return
    command = [program, "status", "--wait"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=max(1.0, deadline - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        _say("warning: cloud-init has not ended, and is not waited for any more")
        return
    if done.returncode in FAILED:
        _say("warning: cloud-init reports errors: cloud-init status --long")


def _wait_for_lock(path: str, deadline: float) -> None:
    waits = False
    while True:
        holder = _holder(path)
        if not holder:
            return
        if not waits:
            _say(f"waiting for the lock of {path}: process {holder} holds it")
            waits = True
        if time.monotonic() > deadline:
            _say(f"warning: process {holder} still holds {path}, and is not waited for any more")
            return
        time.sleep(POLL)


def _holder(path: str) -> int:
    """Return the process that locks a file; 0 for none, or where that cannot be seen."""
    try:
        with open(path, "rb") as stream:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack(FLOCK, fcntl.fcntl(stream, fcntl.F_GETLK, asked))
    except OSError:
        return 0
    # A process of another namespace has no number here.
    return 0 if answer[0] == fcntl.F_UNLCK else answer[4] or -1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
