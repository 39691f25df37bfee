"""Where the files of a run are: its folder on this host, and the bucket of its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import posixpath
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flambe import _disk
from flambe._hints import option
from flambe.errors import ConfigError, Problem
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.storage.checkpoint_storage import Storage
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.output_folder import output_folder
from flambe.progress import RunFolder
from flambe.remote import Address

if TYPE_CHECKING:  # imported where checkpoints are in a bucket
    from flambe.experiment.storage.mirror import Mirror


class RunStorage:
    """The folder of a run, and its checkpoints.

    Parameters
    ----------
    spec
        The experiment.
    notify
        Called with each message for the user.
    local
        Whether checkpoints stay in the folder, whatever the experiment says.
    secrets
        The file of secrets on this host: its variables open a bucket.

    Attributes
    ----------
    folder
        The folder.
    storage
        Where the checkpoints are, for every host.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        notify: Callable[[str], None],
        *,
        local: bool,
        secrets: str = "",
    ) -> None:
        self.spec, self.notify = spec, notify
        root = output_folder(spec)
        self.folder = RunFolder(root)
        url = "" if local else spec.storage
        self.storage = self._storage(f"{url.rstrip('/')}/{root.name}" if url else "", secrets)
        self.checkpoints = Checkpoints(str(root))
        self._mirror: Mirror | None = None

    def _storage(self, url: str, secrets: str) -> Storage:
        env, root = self.spec.env, str(self.folder.root)
        identity = uuid.uuid4().hex if url or env is not None else ""
        storage = Storage(
            root, identity, url=url, patience=_disk.deadline(), secrets=secrets if url else ""
        )
        if env is None:
            return storage
        address = Address.parse(env.orchestrator_ip)
        return dataclasses.replace(
            storage,
            host=address.host,
            port=address.port,
            user=env.user,
            key=Path(env.key).name,
        )

    def open(self, *, force: bool, resume: bool, needs_results: bool) -> None:
        """Open the folder: empty, to be resumed, or after its results are moved aside.

        Parameters
        ----------
        force
            Whether results of an earlier run are moved aside.
        resume
            Whether the run continues from them.
        needs_results
            Whether there must be results to resume from.

        Raises
        ------
        ConfigError
            If it holds results that are neither resumed nor moved aside; if it cannot be written;
            or if the bucket cannot be reached.
        """
        if self.storage.url:
            self._reach_bucket()
        if not resume:
            self._move_aside(force=force)
        if resume and self._mirror is not None:
            with self._reporting_bucket():
                if self._mirror.restore():
                    self.notify(f"the state of an earlier run was copied from {self.storage.url}")
        root = self.folder.root
        if needs_results and not self.folder.variants.exists():
            raise ConfigError(
                Problem(
                    f"{root} holds no results to resume from", hint="run it without resume first"
                )
            )
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.folder.variants.unlink(missing_ok=True)
                self.folder.invocations.unlink(missing_ok=True)
            if self.spec.env is not None:
                self.folder.identity.write_text(self.storage.id, encoding="ascii")
        except OSError as error:
            raise ConfigError(f"cannot make the output folder {root}: {error.strerror}") from None
        if resume:
            self._check_same_storage()

    def _reach_bucket(self) -> None:
        from flambe.experiment.storage.mirror import Mirror

        with self._reporting_bucket():
            self.checkpoints = self.storage.checkpoints()
            self._mirror = Mirror(self.folder, self.checkpoints, self.notify)
            writer = self._mirror.writer()
        if writer is not None:
            raise ConfigError(
                Problem(
                    f"{self.storage.url} is being written by another run: process {writer.pid} on "
                    f"{writer.host}",
                    hint="wait for it or end it; another run needs another name or storage",
                )
            )

    @contextlib.contextmanager
    def _reporting_bucket(self) -> Iterator[None]:
        """Raise a ConfigError that says what to do where the bucket does not answer."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: settings of AWS that are wrong
            names = (
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY … in [environment] of the secrets file"
            )
            raise ConfigError(
                Problem(
                    f"storage: {self.storage.url} cannot be used: {error}",
                    hint=f"credentials: the role of the host, or {names}",
                )
            ) from None

    def _move_aside(self, *, force: bool) -> None:
        """Move the results of an earlier run aside, here and in the bucket.

        Raises
        ------
        ConfigError
            If there are any, and ``force`` does not say so.
        """
        root, base, aside = self.folder.root, self.checkpoints.root, self.folder.aside()
        beside = posixpath.join(posixpath.dirname(base), aside.name)
        moves: list[tuple[str, str, Callable[[], object]]] = []
        if self._holds_results():
            moves.append((str(root), str(aside), lambda: os.replace(root, aside)))
        if self._mirror is not None:
            with self._reporting_bucket():
                if self._mirror.holds_results():
                    files = partial(self.checkpoints.move, base, beside)
                    moves.append((self.storage.url, f"s3://{beside}", files))
        for source, target, move in moves:
            if not force:
                raise ConfigError(
                    Problem(
                        f"{source} holds the results of an earlier run",
                        hint=f"{option('resume')} continues it; {option('force')} moves it aside "
                        "and starts afresh",
                    )
                )
            with self._reporting_bucket():
                move()
            self.notify(f"the earlier results were moved to {target}")

    def _holds_results(self) -> bool:
        """Whether there is more in the folder than what a run writes before its first variant."""
        folder = self.folder
        state = (folder.state, folder.previous_state, folder.variants, folder.log, folder.config)
        described = (folder.lineage, folder.invocations, folder.hosts, folder.identity)
        expected = {*state, *described, folder.resources}
        if not folder.root.is_dir():
            return False
        names = [path for path in folder.root.iterdir() if not path.name.startswith(".")]
        return any(path not in expected for path in names)

    def _check_same_storage(self) -> None:
        """Check that the run to continue has its checkpoints where this run looks for them.

        Raises
        ------
        ConfigError
            If they are elsewhere.
        """
        earlier = self.folder.read_state()
        if earlier is not None and earlier.storage != self.storage.url:
            where = earlier.storage or f"{self.folder.root} itself"
            raise ConfigError(
                Problem(
                    f"storage: the checkpoints of the run to continue are in {where}",
                    hint=f"{option('resume')} needs the same storage; {option('force')} starts "
                    "afresh in another one",
                )
            )

    def start_mirror(self) -> None:
        """Begin to copy what is written in the folder to the bucket, if there is one.

        Raises
        ------
        ConfigError
            If nothing can be written there.
        """
        if self._mirror is not None:
            with self._reporting_bucket():
                self._mirror.start()

    def close(self) -> None:
        """Copy to the bucket what was written last."""
        if self._mirror is not None:
            self._mirror.stop()
