"""The refusals of a host's disk, as its commands print them, and what helps."""

from __future__ import annotations

import re

_FULL = re.compile("No space left on device|Disk quota exceeded")
_READ_ONLY = re.compile("Read-only file system")
# Of a program of Python there: ssh says "Permission denied" of a login.
_DENIED = re.compile(r"PermissionError: \[Errno 1?[13]\]|cannot create .*: Permission denied")
#: Prints where the disk of a path is mounted, and what is free of its blocks and its inodes.
DISK_USAGE = (
    'while [ ! -e "$1" ]; do set -- "$(dirname "$1")"; done; '
    'df -Ph "$1" | tail -n 1; df -Pi "$1" | tail -n 1'
)
_ANOTHER = "or give flambe another folder (remote_dir)"


def is_refusal(text: str) -> bool:
    """Whether the output of a command is the refusal of a disk."""
    return any(pattern.search(text) for pattern in (_FULL, _READ_ONLY, _DENIED))


def explain(text: str, path: str, user: str, disk: str) -> str:
    """Return a message about what a disk refused, and what helps.

    Parameters
    ----------
    text
        The output of a command.
    path
        What could not be written.
    user
        Whose command it was.
    disk
        What :data:`DISK_USAGE` printed.
    """
    rows = [line.split(None, 5) for line in disk.splitlines()]
    blocks, inodes = rows if len(rows) == 2 and all(len(row) == 6 for row in rows) else ([], [])
    mount = blocks[5] if blocks else path
    if _READ_ONLY.search(text):
        return f"{path} is read-only ({mount})\n  = remount it writable, {_ANOTHER}"
    if not _FULL.search(text):
        return f"{path} cannot be written by {user}\n  = give it to that user, {_ANOTHER}"
    if inodes and inodes[3] == "0":
        return f"no inodes left on {mount}, for {path}\n  = remove some files, {_ANOTHER}"
    where = f": {mount} is full ({blocks[1]}, {blocks[3]} free)" if blocks else ""
    return (
        f"no space left for {path}{where}\n  = free some, {_ANOTHER}; "
        f"what takes most:   du -xhd 2 | sort -h | tail   as {user} there"
    )
