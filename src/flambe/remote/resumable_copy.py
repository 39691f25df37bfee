"""Copies that continue when the connection was lost, and rsync's messages, explained."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable

from flambe._process import quote_tail
from flambe.errors import CommandError, DeadlineError, RemoteError, UnreachableError
from flambe.logging import redact
from flambe.remote import cancel_scope, shell
from flambe.remote.ssh_master import SshMaster

_log = logging.getLogger(__name__)

# What a file is called until the whole of it is there: a folder beside it, as rsync --partial-dir
# makes it, and which it never sends.
PARTIAL = ".flambe-partial"
# How often a copy is begun, and how often in a row without a minute that it went well.
MOST, IN_A_ROW = 20, 5
MINUTE = 60.0
WAIT_FIRST, WAIT_MOST = 1.0, 15.0
# What rsync ends with when the other side is gone: 255 is ssh's, 30 is its own --timeout.
_LOST = frozenset((10, 12, 20, 30, 255))
_SILENT = 30
# A file went while it was on its way, as those of a run do: there is nothing to bring.
VANISHED = 24
# What it says when that side is there, and something else is wrong.
_REAL = re.compile(
    "No space left|Disk quota|Permission denied|Read-only file system|Input/output error|"
    "No such file|Not a directory|Is a directory|File name too long|File too large"
)
_UNCLEAN = re.compile("is your shell clean")
_MISSING = re.compile(
    "rsync: (command )?not found|command not found: rsync|Unknown command: '?rsync|"
    "(execvp|exec)[^\n]*rsync: No such file"
)
_NO_PROGRAM = 127
CONTINUES = "the same command continues"
NOT_INSTALLED = "rsync is not installed"


def resume(copy: Callable[[], object], master: SshMaster, title: str) -> None:
    """Copy, and continue when the connection is lost; what was sent is not sent again.

    Parameters
    ----------
    copy
        Does it; called again after a loss.
    master
        Which may be started again meanwhile.
    title
        What is copied, for people: ``"x is sent to y"``.

    Raises
    ------
    UnreachableError
        If the connection is lost again and again, or does not come back.
    RemoteError
        If something else is wrong.
    """
    wait, in_a_row = WAIT_FIRST, 0
    last: RemoteError | None = None
    for _ in range(MOST):
        begun = time.monotonic()
        try:
            master.open()
            copy()
        except (CommandError, UnreachableError) as error:
            if not is_lost(error):
                raise explained(error, master, title) from None
            is_first, last = last is None, error
            went_well = time.monotonic() - begun > MINUTE and _code(error) != _SILENT
            wait, in_a_row = (WAIT_FIRST, 1) if went_well else (wait, in_a_row + 1)
            if in_a_row >= IN_A_ROW or _no_connection(error):
                break
            if is_first:
                _log.warning("%s: connection lost while %s; trying again", master.name, title)
            cancel_scope.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, WAIT_MOST)
        else:
            return
    assert last is not None
    raise _given_up(last, master, title)


def is_lost(error: RemoteError) -> bool:
    """Whether a copy failed since the other side was gone, and may go on."""
    if isinstance(error, CommandError):
        stderr = error.stderr
        other = _REAL.search(stderr) or _UNCLEAN.search(stderr) or _MISSING.search(stderr)
        return error.code in _LOST and not other and not isinstance(error, DeadlineError)
    return isinstance(error, UnreachableError)


def _code(error: RemoteError) -> int:
    return error.code if isinstance(error, CommandError) else 255


def _no_connection(error: RemoteError) -> bool:
    """Whether it is known that trying again is of no use: it was tried for long, or refused."""
    return isinstance(error, UnreachableError) and "connection was lost" not in error.message


def _given_up(error: RemoteError, master: SshMaster, title: str) -> UnreachableError:
    text = f"the connection was lost again and again while {title}"
    if _no_connection(error):
        text = f"the connection was lost while {title}, and does not come back: {error.message}"
    return UnreachableError(master.name, f"{text}\n  {CONTINUES} where it was")


def explained(error: RemoteError, master: SshMaster, title: str) -> RemoteError:
    """Return an error that explains why a copy failed."""
    if not isinstance(error, CommandError) or isinstance(error, DeadlineError):
        return error
    if _UNCLEAN.search(error.stderr):
        return shell.unclean(master)
    if _MISSING.search(error.stderr) or error.code == _NO_PROGRAM:
        return missing(master.name)
    lines = [line for line in map(_plain, redact.hide(error.stderr).splitlines()) if line]
    text = quote_tail("\n".join(lines), 8)
    return RemoteError(master.name, f"it failed while {title}{text or f' (code {error.code})'}")


def missing(host: str) -> RemoteError:
    """Return the error of a host that has no rsync."""
    name = host.partition(" (")[0]
    return RemoteError(host, f"{NOT_INSTALLED} on {name}: apt-get install rsync")


def _plain(line: str) -> str:
    """Return a line of what rsync says without what is rsync's own; nothing, if no more is left."""
    if re.match(
        r"rsync error: |rsync: connection unexpectedly closed|rsync: \[\w+\] write error", line
    ):
        return ""
    return re.sub(r"^rsync: (\[\w+\] )?", "", line.strip())
