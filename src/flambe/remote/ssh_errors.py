"""The messages of ssh when it cannot connect, and what people can do about it."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

CHANGED = re.compile("HOST IDENTIFICATION HAS CHANGED")
NEW_KEY = re.compile("Permanently added .* to the list of known hosts")
# The ssh to a host that ours is reached through (ProxyJump) failed. Ours accepts a new key; that
# one knows what its user knows, and nothing else.
THROUGH = re.compile("UNKNOWN port")
UNKNOWN_KEY = re.compile("Host key verification failed")
REFUSED_LOGIN = re.compile("Permission denied|Too many authentication failures")
FINAL = re.compile(
    "Could not resolve hostname|UNPROTECTED PRIVATE KEY|Load key .*: |no such identity|"
    "Bad configuration option|bad permissions|Bad owner"
)

_ADVICE = (
    (r"Load key .*: ", "is that a private key? It begins with -----BEGIN"),
    (
        REFUSED_LOGIN.pattern,
        "are the user and the key right? A key with a passphrase goes to your agent:   ssh-add KEY",
    ),
    ("Could not resolve hostname", "is the name right? An IP address will do too"),
    (
        "Connection refused",
        "does its SSH server listen on another port? It is written   10.0.0.1:2222",
    ),
    (
        "timed out|No route to host|Network is unreachable",
        "is the address right, is the host switched on, and is its port open to this machine?",
    ),
)


def relevant_lines(output: str) -> list[str]:
    """Return the lines of what ssh printed that help people."""
    lines = (line.strip("\r\n @") for line in output.splitlines())
    return [line for line in lines if line and not NEW_KEY.search(line)]


def advice(output: str, key: Path | None = None) -> str:
    """Return what to check, or nothing; ``key`` is the private key of the login, if it has one."""
    if key is not None and REFUSED_LOGIN.search(output) and _is_locked(key):
        return f"the key has a passphrase: give it to your agent once   ssh-add {key}"
    return next((text for pattern, text in _ADVICE if re.search(pattern, output)), "")


def _is_locked(key: Path) -> bool:
    """Whether a private key has a passphrase."""
    command = ["ssh-keygen", "-y", "-P", "", "-f", str(key)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=10
        )
        return b"incorrect passphrase" in done.stderr
    return False


def offending_entry(output: str) -> str:
    """Return where the old key of a host is that has another one now, or nothing."""
    match = re.search(r"Offending \S+ key in (\S+?):(\d+)", output)
    return f"{match[1]}, line {match[2]}" if match else ""
