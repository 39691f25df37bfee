"""Copies by the system's rsync, through the connection that is there."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flambe.errors import CommandError, RemoteError
from flambe.remote import scope
from flambe.remote.connection import Connection

# Seconds without a byte after which a copy has failed.
SILENCE = 120


def rsync(
    connection: Connection,
    here: Path,
    there: str,
    *,
    up: bool,
    delete: bool = False,
    exclude: Sequence[str] = (),
) -> None:
    """Bring one side up to date with the other; only differences are sent.

    Raises
    ------
    CommandError
        If rsync fails.
    RemoteError
        If it is not installed here.
    """
    local = f"{here}/" if (here.is_dir() and up) or there.endswith("/") else str(here)
    host = connection.destination
    remote = f"[{host}]:{there}" if ":" in host else f"{host}:{there}"
    command = ["rsync", "-a", "--partial", f"--timeout={SILENCE}"]
    if _keeps_names():
        command.append("-s")
    if delete:
        command.append("--delete")
    command += [f"--exclude={pattern}" for pattern in exclude]
    command += ["-e", shlex.join(connection.ssh()), "--"]
    command += [local, remote] if up else [remote, local]
    shown = f"rsync {local} {'to' if up else 'from'} {there}"
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    inside = scope.current.get()
    token = inside.enter(process.terminate) if inside is not None else 0
    try:
        out, err = process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        if inside is not None:
            inside.leave(token)
    if process.returncode:
        raise CommandError(connection.name, shown, process.returncode, out, err)


@functools.cache
def _keeps_names() -> bool:
    """Whether this rsync can send names past the shell of the host (``-s``).

    macOS has one of 2006, or another program of that name, which cannot.
    """
    try:
        done = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RemoteError("this machine", "rsync is not installed: install rsync") from None
    match = re.search(r"rsync\s+version\s+v?(\d+)", done.stdout)
    return match is not None and int(match[1]) >= 3
