"""Copies by the system's rsync, through the connection that exists."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
from collections.abc import Sequence

from flambe.errors import CommandError, RemoteError
from flambe.remote import cancel_scope, resumable_copy, shell
from flambe.remote.ssh_master import SshMaster
from flambe.remote.transport import Copy

# Seconds without a byte after which a copy has failed.
SILENCE = 120
# What is brought here is ours, also where we are root. The host may not be in good hands: links
# could lead what is written next out of the folder (CVE-2024-12087), and a program that runs as its
# owner could be started by others.
FETCH = (
    "--no-owner", "--no-group", "--no-links", "--no-devices", "--no-specials",
    "--chmod=ug-s,o-t,go-w",
)  # fmt: skip
# The first version that is asked to do something, and the first that compares nanoseconds.
OLDEST, NANOSECONDS = (3, 0, 0), (3, 1, 3)


def rsync(master: SshMaster, copy: Copy) -> None:
    """Bring one side up to date with the other; only differences are sent.

    A file has its name when the whole of it is there. What was begun when the connection was lost
    is continued: at once, and if that does not help, by the next call.

    Raises
    ------
    UnreachableError
        If the connection is lost again and again.
    RemoteError
        If it fails, or rsync is missing on either side, or too old.
    """
    # Absolute: a colon in a relative path would make it one of another host.
    local, is_folder = str(copy.local.absolute()), copy.local.is_dir()
    local += "/" if (is_folder and copy.upload) or copy.remote.endswith("/") else ""
    if copy.upload:
        path = written_to(copy.remote, "" if is_folder else copy.local.name)
    else:
        path = literal(copy.remote)
    host = master.destination
    remote = f"[{host}]:{path}" if ":" in host else f"{host}:{path}"
    check()
    shell.refuse(master)
    command = ["rsync", *options(_version() or (), copy.remote_version)]
    command += [] if copy.upload else FETCH
    if copy.delete:
        command.append("--delete")
    command += [f"--exclude={pattern}" for pattern in copy.exclude]
    command += ["-e", shlex.join(master.ssh()), "--"]
    command += [local, remote] if copy.upload else [remote, local]
    title = f"{local} is sent to {copy.remote}"
    if not copy.upload:
        title = f"{copy.remote} is brought to {local}"
    resumable_copy.resume(lambda: _run(master, command, title), master, title)


def _run(master: SshMaster, command: Sequence[str], title: str) -> None:
    """Run rsync once.

    Raises
    ------
    CommandError
        If it fails.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        with cancel_scope.entered(process.terminate):
            out, err = process.communicate()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    scope = cancel_scope.current.get()
    if scope is not None and scope.cancelled:
        raise RemoteError(master.name, f"interrupted while {title}")
    if process.returncode not in (0, resumable_copy.VANISHED):
        raise CommandError(master.name, title, process.returncode, out, err)


def literal(path: str) -> str:
    """Return a path of a host as rsync takes it, which there reads ``*?[`` as patterns."""
    return "/".join(
        re.sub(r"([*?\[\\])", r"\\\1", part) if re.search(r"[*?\[]", part) else part
        for part in path.split("/")
    )


def written_to(path: str, name: str) -> str:
    """Return a path of a host that is written to as rsync takes it.

    Parameters
    ----------
    path
        The path.
    name
        What the file that is sent is called; empty for the content of a folder.

    Raises
    ------
    ValueError
        If the file is to have another name, with ``*?[`` in it: rsync cannot be told to make it.
    """
    parent, slash, last = path.rpartition("/")
    if literal(last) == last or not name:  # a folder is there already
        return literal(path)
    if last != name:
        raise ValueError(f"a file cannot be sent to {path!r}: rsync reads that as a pattern")
    return f"{literal(parent)}{slash}" if slash else "./"


def check() -> None:
    """Check that this machine has an rsync that is new enough.

    Raises
    ------
    RemoteError
        If there is none, or an old one.
    """
    version = _version()
    if version is None:
        raise RemoteError("this machine", "rsync is not installed: install rsync")
    # Older ones let the shell of the host take names apart (they have no -s), as macOS's of 2006
    # and the openrsync that came after it do.
    if version < OLDEST:
        raise RemoteError(
            "this machine",
            "its rsync is too old, or another program of that name; flambe needs rsync 3\n"
            "  = on macOS:   brew install rsync   (and see: rsync --version)",
        )


@functools.cache
def _version() -> tuple[int, ...] | None:
    """Return the version of this machine's rsync: None without one, zeros for another program."""
    try:
        done = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return parsed(done.stdout) or (0, 0, 0)


def parsed(text: str) -> tuple[int, ...]:
    """Return the version that ``rsync --version`` prints, or nothing."""
    match = re.match(r"rsync\s+version\s+v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, match.groups())) if match else ()


def options(*others: tuple[int, ...]) -> list[str]:
    """Return the options of every copy, between rsyncs of these versions, as far as known.

    Times are compared to the nanosecond where all can do so: else an edit within a second of the
    last one, to a file that keeps its size, is not seen.
    """
    exact = all(not version or version >= NANOSECONDS for version in others)
    command = ["-a", "-s", f"--partial-dir={resumable_copy.PARTIAL}", f"--timeout={SILENCE}"]
    return [*command, "--modify-window=-1"] if exact else command
