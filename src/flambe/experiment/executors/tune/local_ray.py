"""The Ray of a run on this machine: nobody else joins it or reads its files, and it leaves nothing.

Ray makes its folders with mode 0777, below a name that is known beforehand, and leaves them behind.
It has one token for all clusters of a user, and listens on every address. Here it has a folder
below one that only its owner reaches, a token of its own, and the loopback.

Ray reads some of its settings when it is imported: nothing here does so before they are set.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from flambe._files import locked_folder, write_private
from flambe.errors import RunError, listed

_log = logging.getLogger(__name__)

PREFIX = "flambe-run-"
# Of the path of a socket (man 7 unix), and what Ray appends: its session, and its object store.
MAX_SOCKET = 107
SOCKET_IN_SESSION = "/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
REMOVAL_SECONDS = 5.0  # how long processes of Ray that end may still write
# Ray has the loopback for its address where it takes a machine for one that joins no others.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# What would let it join another cluster, or take another token.
_NOT_OURS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")


def import_for_loopback() -> None:
    """Import Ray so that it listens on the loopback only, unless it was imported before."""
    with _environment(_LOOPBACK):
        import ray  # noqa: F401


class LocalRay:
    """Ray for one run: begun by :meth:`start`, and gone after :meth:`close`."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._cleanup = contextlib.ExitStack()

    def start(self, **options: Any) -> None:
        """Start Ray in a fresh folder.

        Parameters
        ----------
        options
            Of ``ray.init``.

        Raises
        ------
        RunError
            If there is no folder where it may be.
        """
        self.folder = self._cleanup.enter_context(_private_folder())
        token = self.folder / "token"
        write_private(token, secrets.token_hex(32))
        self._cleanup.enter_context(_environment({**_LOOPBACK, "RAY_AUTH_TOKEN_PATH": str(token)}))
        import ray

        _forget_token()
        # Not what another Ray of this user left word of.
        ray.init(address="local", _temp_dir=str(self.folder / "r"), **options)

    def close(self) -> None:
        """Stop it, and remove all that it left."""
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        self._cleanup.close()


def _forget_token() -> None:
    """Let Ray read the token: it keeps one that an earlier cluster of this process had."""
    import ray._raylet as core

    if loader := getattr(core, "AuthenticationTokenLoader", None):
        loader.instance().reset_cache()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of this process and those that it starts, and put them back."""
    before = {name: os.environ.get(name) for name in (*variables, *_NOT_OURS)}
    for name in _NOT_OURS:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


# -- the folder ---------------------------------------------------------------------------------


def _private_folder() -> AbstractContextManager[Path]:
    """Make the folder of a run, which only we reach."""
    return locked_folder(_base(), PREFIX, _remove)


def _base() -> Path:
    """Return the folder for temporary files that the folder of a run goes into.

    Raises
    ------
    RunError
        If none can be used.
    """
    reasons = []
    for name in dict.fromkeys([os.environ.get("RAY_TMPDIR", ""), tempfile.gettempdir(), "/tmp"]):
        base = Path(name)
        if not name or not base.is_absolute():
            continue
        longest = len(os.fsencode(f"{base.resolve()}/{PREFIX}12345678{SOCKET_IN_SESSION}"))
        if longest > MAX_SOCKET:
            reasons.append(f"{base} is too long for the sockets in it")
        elif not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
            reasons.append(f"{base} is not a folder that you can write to")
        elif exposed := _exposed(base.resolve()):
            reasons.append(f"others may replace what is in {exposed}: it needs the sticky bit")
        else:
            for reason in reasons:
                _log.warning("%s: the files of Ray go to %s", reason, base)
            return base.resolve()
    raise RunError(
        f"Ray has no place for its files: {listed(reasons)}\n"
        "  set RAY_TMPDIR to a folder of yours with a short path"
    )


def _exposed(folder: Path) -> Path | None:
    """Return a folder on the way to the root in which others may replace ours, if there is one."""
    for path in (folder, *folder.parents):
        status = path.stat()
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if (others_write and not status.st_mode & stat.S_ISVTX) or status.st_uid not in (
            0,
            os.geteuid(),
        ):
            return path
    return None


def _remove(folder: Path) -> None:
    """Remove a folder, in which processes that end may still write for a moment."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05 if folder.exists() else 0)
