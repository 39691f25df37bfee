"""The Ray of a run on this machine: private to its user, and removed at the end.

By itself, Ray makes its folders with mode 0777 below a predictable name, leaves them behind, shares
one token between all clusters of a user, and listens on every address. Here it has a folder below
one that only its owner can access, a token of its own, and the loopback interface. Shown by
``tests/security/test_ray.py``.

Ray reads some of its settings when it is imported: nothing here imports it before they are set.
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
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from flambe._files import locked_folder, write_private
from flambe._retry import poll
from flambe.errors import RunError, listed

_log = logging.getLogger(__name__)

PREFIX = "flambe-run-"
# Of the path of a socket (man 7 unix), and what Ray appends: its session, and its object store.
MAX_SOCKET = 107
SOCKET_IN_SESSION = "/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
REMOVAL_SECONDS = 5.0  # how long ending processes of Ray may still write
# Ray uses the loopback interface on a machine that it takes for one that joins no cluster.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# What would make it join another cluster, or read another token.
_FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")


def import_for_loopback() -> None:
    """Import Ray so that it listens on the loopback interface only; too late if it is imported."""
    with _environment(_LOOPBACK):
        import ray  # noqa: F401


class LocalRay:
    """Ray for one run, from :meth:`start` to :meth:`close`."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._cleanup = contextlib.ExitStack()

    def start(self, **options: object) -> None:
        """Start Ray in a new folder.

        Parameters
        ----------
        options
            Of ``ray.init``.

        Raises
        ------
        RunError
            If no folder is suitable.
        """
        self.folder = self._cleanup.enter_context(_private_folder())
        token = self.folder / "token"
        write_private(token, secrets.token_hex(32))
        self._cleanup.enter_context(_environment({**_LOOPBACK, "RAY_AUTH_TOKEN_PATH": str(token)}))
        import ray

        forget_token()
        # Not an address that another Ray of this user has written down.
        ray.init(address="local", _temp_dir=str(self.folder / "r"), **options)

    def close(self) -> None:
        """Stop Ray, and remove all its files."""
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        self._cleanup.close()


def forget_token() -> None:
    """Make Ray read the token again: it caches that of an earlier cluster of this process."""
    import ray._raylet as core

    if loader := getattr(core, "AuthenticationTokenLoader", None):
        loader.instance().reset_cache()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them at the end."""
    before = {name: os.environ.get(name) for name in (*variables, *_FOREIGN)}
    for name in _FOREIGN:
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
    """Make the folder of a run, which only its owner can access."""
    return locked_folder(_base(), PREFIX, _remove)


def _base() -> Path:
    """Return the folder for temporary files in which the folder of a run is made.

    Raises
    ------
    RunError
        If none is suitable.
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
            reasons.append(f"others may replace files in {exposed}: it needs the sticky bit")
        else:
            for reason in reasons:
                _log.warning("%s: the files of Ray are in %s", reason, base)
            return base.resolve()
    raise RunError(
        f"no folder is suitable for the files of Ray: {listed(reasons)}\n"
        "  set RAY_TMPDIR to a folder of your own with a short path"
    )


def _exposed(folder: Path) -> Path | None:
    """Return a parent folder in which other users may replace files, if there is one."""
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
    """Remove a folder in which ending processes may still write for a moment."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    poll(is_gone, seconds=REMOVAL_SECONDS, pause=0.05)
