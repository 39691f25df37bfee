"""The boot of a host is waited for: by the agent's own process, with a real lock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flambe.remote.agent import boot

# Holds a lock as dpkg does, until its input ends.
HOLDER = """
import fcntl, sys
stream = open(sys.argv[1], "w")
fcntl.lockf(stream, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
WAITER = """
import sys
from flambe.remote.agent import boot
boot.wait(float(sys.argv[1]), tuple(sys.argv[2:]))
print("booted", flush=True)
"""


def waiter(folder: Path, seconds: float, *locks: Path) -> subprocess.Popen[str]:
    """Start the wait in a process whose ``cloud-init`` is one of this folder."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-c", WAITER, str(seconds), *map(str, locks)],
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def cloud_init(folder: Path, script: str) -> None:
    """Write a ``cloud-init`` that does this when its status is waited for."""
    program = folder / "cloud-init"
    program.write_text(f'#!/bin/sh\n[ "$*" = "status --wait" ] || exit 64\n{script}\n')
    program.chmod(0o755)


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with waiter(tmp_path, 300, path, tmp_path / "no such file") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == f"waiting for the lock of {path}: process {holder.pid} holds it\n"
            assert process.poll() is None
            holder.communicate()
            assert process.stdout.read() == "booted\n"


def test_a_lock_that_is_not_given_back_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with waiter(tmp_path, 0.2, path) as process:
            said = process.communicate()[0]
        holder.communicate()
    assert f"warning: process {holder.pid} still holds {path}" in said
    assert said.endswith("booted\n")


def test_cloud_init_is_waited_for(tmp_path: Path) -> None:
    cloud_init(tmp_path, f"until [ -e {tmp_path}/done ]; do sleep 0.05; done")
    with waiter(tmp_path, 300) as process:
        time.sleep(0.3)
        assert process.poll() is None
        (tmp_path / "done").touch()
        assert process.communicate()[0] == "booted\n"


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("exit 2", "warning: cloud-init reports errors: cloud-init status --long\n"),
        ("exec sleep 60", "warning: cloud-init has not ended, and is not waited for any more\n"),
    ],
)
def test_what_is_wrong_with_cloud_init_is_said(tmp_path: Path, script: str, line: str) -> None:
    cloud_init(tmp_path, script)
    with waiter(tmp_path, 0.1) as process:
        assert process.communicate()[0] == f"{line}booted\n"


def test_hosts_that_have_neither(tmp_path: Path) -> None:
    boot.wait(0.1, (str(tmp_path / "no such file"),))
