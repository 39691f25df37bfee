"""Where the checkpoints of a run are: written and read from every host.

They are in the folder of the run on its orchestrator, unless ``storage`` of the experiment names a
bucket. On a host that has that folder itself (the orchestrator, or any host where it is on a shared
disk) it is written directly; elsewhere over SFTP with the cluster's own key. Which of the two is
found out where it is used, by the id that the run has written into its folder.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flambe import _disk
from flambe._files import file_lock, locked_folder, private_folder, replacing
from flambe._retry import retry
from flambe.errors import DamagedError, HaltedError, RunError
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.manifest import MANIFEST
from flambe.experiment.storage.verification import verify
from flambe.logging.console import home_folder
from flambe.progress import RunFolder, host_name
from flambe.runnable.secrets import Secrets

if TYPE_CHECKING:  # imported when they are needed: a run where nothing changed is quick
    from fsspec import AbstractFileSystem
    from pyarrow.fs import PyFileSystem

    from flambe.experiment.storage import bucket, sftp

CONNECT_SECONDS = 90.0  # how long a host tries to reach the orchestrator
# A connection is given up after so many seconds of silence: a short cut is waited out.
ALIVE_INTERVAL, ALIVE_COUNT = 15, 6
# Seconds between two tries to do what failed for want of a connection.
PAUSES = (1.0, 5.0, 15.0)
# How long copies of checkpoints are kept on a host after their last use.
CACHE_SECONDS = 7 * 24 * 3600
# What a killed process leaves of an upload is removed by the next one.
_UPLOADS = "flambe-upload-"
_RESUME = "--resume takes the checkpoint before it, if one is kept, or runs the variant again"
T = TypeVar("T")


@dataclass(frozen=True)
class Storage:
    """Where the files of one run are.

    Attributes
    ----------
    root
        The path of its folder on the orchestrator.
    id
        An id that is written in it; empty for a run on one machine only.
    url
        Where its checkpoints are instead, an ``s3://`` URL.
    patience
        For how many seconds the run waits for room, where the disk is full.
    secrets
        The file of secrets on the orchestrator: its variables open the bucket there. Other hosts
        have these variables in the environment of their processes.
    host, port, user, key
        How other hosts reach the orchestrator: ``key`` is the name of a file in ``~/.ssh``.
    """

    root: str
    id: str = ""
    host: str = ""
    port: int = 22
    user: str = ""
    key: str = ""
    url: str = ""
    patience: float = _disk.SECONDS
    secrets: str = ""

    @property
    def base(self) -> str:
        """The folder that the checkpoints are below, as its file system names it."""
        return self.url.removeprefix("s3://") or self.root

    @property
    def is_here(self) -> bool:
        """Whether this host has the folder of the checkpoints itself."""
        if self.url:
            return False
        if not self.id:
            return True
        try:
            return RunFolder(Path(self.root)).identity.read_text(encoding="ascii") == self.id
        except OSError:
            return False

    def files(self) -> AbstractFileSystem:
        """Return the file system (of fsspec) in which the folder is, as seen from this host."""
        if self.is_here:
            from fsspec.implementations.local import LocalFileSystem

            return LocalFileSystem()
        return _in_bucket(self) if self.url else _connected(self)

    def checkpoints(self) -> Checkpoints:
        """Return the checkpoints, as the driver of the run sees them.

        Raises
        ------
        OSError
            If they are in a bucket, and it cannot be reached.
        """
        return Checkpoints(self.base, _in_bucket(self).fs if self.url else None)

    def for_tune(self) -> PyFileSystem | None:
        """Return the file system for Ray Tune, which works on any host; None for a local run."""
        if not self.id:
            return None
        from flambe.experiment.storage.tune_files import file_system

        return file_system(self)

    def refusal(self, error: BaseException) -> str:
        """Return a reason if an error is that the disk of the folder is full, else nothing."""
        if self.url:
            return ""
        if isinstance(error, OSError) and _disk.is_full(error):
            own = self.root if self.is_here else tempfile.gettempdir()
            return _disk.reason(error, error.filename or own, host_name())
        if self.is_here or not isinstance(error, Exception):
            return ""
        with contextlib.suppress(Exception):  # SFTP does not have such an error: it only fails
            return str(_connected(self).full(self.root))
        return ""

    @contextlib.contextmanager
    def writing(self, checkpoint: str) -> Iterator[Path]:
        """Give a folder of this host to write a checkpoint into, and move it into place."""
        if self.is_here:
            # A part of it may exist already, and its files may be links.
            shutil.rmtree(checkpoint, ignore_errors=True)
            os.mkdir(checkpoint)
            yield Path(checkpoint)
            return
        with locked_folder(Path(tempfile.gettempdir()), _UPLOADS) as folder:
            written = folder / "checkpoint"
            written.mkdir()
            yield written
            if self.url:
                from pyarrow.fs import copy_files

                copy_files(str(written), checkpoint, destination_filesystem=self.for_tune())
            else:
                _connected(self).put_all(written, checkpoint)

    def fetch(self, checkpoint: str) -> Path:
        """Return the path on this host of a checkpoint below the base; it is copied if need be.

        Raises
        ------
        FileNotFoundError
            If it does not exist.
        DamagedError
            If it is not what was written. Then ``--resume`` does not use it any more.
        """
        try:
            if self.is_here:
                verify(Path(checkpoint))
                return Path(checkpoint)
            return retry_access(lambda: self._fetch_copy(checkpoint), f"{checkpoint} is read")
        except DamagedError as error:
            self.everywhere().condemn(checkpoint)
            raise DamagedError(f"{error}\n  {_RESUME}") from None

    def everywhere(self) -> Checkpoints:
        """Return the checkpoints as any host sees them."""
        return Checkpoints(self.base, None if self.is_here else self.for_tune())

    def _fetch_copy(self, checkpoint: str) -> Path:
        from pyarrow.fs import copy_files

        files = self.files()
        target = _cache(self.id) / os.path.relpath(checkpoint, self.base)
        private_folder(target.parent)
        with file_lock(target.parent / f".{target.name}.lock"):
            manifest = files.cat_file(f"{checkpoint}/{MANIFEST}")
            copied = target / MANIFEST
            if copied.exists() and copied.read_bytes() == manifest:
                with contextlib.suppress(DamagedError):  # the copy is: the original may be sound
                    verify(target)
                    return target
            with replacing(target) as part:
                private_folder(part)
                copy_files(checkpoint, str(part), source_filesystem=self.for_tune())
                verify(part)
                shutil.rmtree(target, ignore_errors=True)
        return target


def _cache(identity: str) -> Path:
    """Return where a run keeps copies of checkpoints on this host; old ones are removed."""
    folder = home_folder("cache", "runs", identity)
    now = time.time()
    os.utime(folder, (now, now))
    for other in folder.parent.iterdir():
        with contextlib.suppress(OSError):
            if now - other.stat().st_mtime > CACHE_SECONDS:
                shutil.rmtree(other)
    return folder


@functools.lru_cache(maxsize=4)
def _in_bucket(storage: Storage) -> bucket.BucketFiles:
    from flambe.experiment.storage import bucket

    # The driver does not export them: what it starts would show them to other users.
    secrets = Path(storage.secrets)
    variables = Secrets.read(secrets).variables if storage.secrets and secrets.is_file() else {}
    return bucket.BucketFiles(bucket.connect_bucket(storage.base, variables))


@functools.lru_cache(maxsize=4)
def _connected(storage: Storage) -> sftp.SftpFiles:
    """Return a connection to the orchestrator, one for each process.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    from flambe.experiment.storage import sftp

    key = Path.home() / ".ssh" / storage.key

    def connect() -> sftp.SftpFiles:
        # One after another: sshd drops connections that come all at once (MaxStartups).
        with file_lock(home_folder("cache") / "sftp.lock"):
            return sftp.SftpFiles(
                storage.host,
                port=storage.port,
                username=storage.user,
                client_keys=[str(key)],
                known_hosts=f"{key}.known_hosts",
                agent_path=None,
                config=None,
                encryption_algs=sftp.CIPHERS,
                connect_timeout=15,
                login_timeout=30,
                keepalive_interval=ALIVE_INTERVAL,
                keepalive_count_max=ALIVE_COUNT,
                skip_instance_cache=True,
            )

    try:
        return retry(
            connect, seconds=CONNECT_SECONDS, on=_is_connection_error, longest=10.0, jitter=True
        )
    except Exception as error:
        if not _is_connection_error(error):
            raise
        where = f"{storage.user}@{storage.host}:{storage.port}"
        raise RunError(f"cannot write to the orchestrator by SFTP ({where}): {error}") from error


def retry_access(do: Callable[[], T], activity: str, storage: Storage | None = None) -> T:
    """Do something that needs the orchestrator; when the connection is lost, do it again.

    Parameters
    ----------
    do
        Does it.
    activity
        What it is, for people: ``"a checkpoint is written"``.
    storage
        Where it writes: while its disk is full, it is done again until there is room.

    Raises
    ------
    HaltedError
        If the disk is still full in the end.
    """
    pauses = iter(PAUSES)
    full_until: float | None = None
    while True:
        try:
            return do()
        except FileNotFoundError:
            raise
        except Exception as error:
            if not isinstance(error, RunError) and not _is_connection_error(error):
                raise
            if storage is not None and (refusal := storage.refusal(error)):
                now = time.monotonic()
                full_until = full_until or now + storage.patience
                if now > full_until:
                    raise HaltedError(refusal) from error
                pause = min(_disk.PAUSE, storage.patience)
            elif (pause := next(pauses, 0.0)) == 0.0:
                raise
            else:
                logging.getLogger(__name__).warning("%s again: %s", activity, error)
                _connected.cache_clear()
                _in_bucket.cache_clear()
            time.sleep(pause)


def _is_connection_error(error: BaseException) -> bool:
    # They are imported where something is written over SFTP, and not only to ask this.
    asyncssh, fsspec = sys.modules.get("asyncssh"), sys.modules.get("fsspec.exceptions")
    classes: list[type[BaseException]] = [OSError]
    classes += [asyncssh.Error] if asyncssh is not None else []
    classes += [fsspec.FSTimeoutError] if fsspec is not None else []
    return isinstance(error, tuple(classes))
