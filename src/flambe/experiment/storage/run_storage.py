"""Where a run is: its folder on this host, and the bucket of its checkpoints, if it has one."""

from __future__ import annotations

import contextlib
import os
import posixpath
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambe import _disk
from flambe.errors import ConfigError, Problem
from flambe.experiment import validation
from flambe.experiment.storage import checkpoint_storage
from flambe.experiment.storage.checkpoint_storage import Storage
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.mirror import Mirror
from flambe.progress import RunFolder, VariantState
from flambe.remote import Address
from flambe.runnable.secrets import Secrets

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment


def output_folder(experiment: Experiment) -> Path:
    """Return the folder of a run on this host: ``~`` and variables in ``save_path`` are replaced.

    Raises
    ------
    ConfigError
        If a variable is not set.
    """
    if what := validation.wrong_save_path(experiment.save_path):
        raise ConfigError(Problem(f"save_path: {what}"))
    path = Path(os.path.expanduser(os.path.expandvars(experiment.save_path)))
    return path.absolute() / f"output__{experiment.name}"


class Place:
    """The folder of a run, and its checkpoints.

    Parameters
    ----------
    experiment
        What is run.
    note
        Told what people want to know.
    local
        Whether checkpoints stay in the folder, whatever the experiment says.

    Attributes
    ----------
    folder
        The folder.
    storage
        Where the checkpoints are, for every host.
    """

    def __init__(self, experiment: Experiment, note: Callable[[str], None], *, local: bool) -> None:
        self.experiment, self.note = experiment, note
        root = output_folder(experiment)
        self.folder = RunFolder(root)
        url = "" if local or not experiment.storage else experiment.storage
        self.storage = self._storage(f"{url.rstrip('/')}/{root.name}" if url else "")
        self.checkpoints = Checkpoints(str(root))
        self._mirror: Mirror | None = None

    def _storage(self, url: str) -> Storage:
        env, root = self.experiment.env, str(self.folder.root)
        identity = uuid.uuid4().hex if url or env is not None else ""
        if env is None:
            return Storage(root, identity, url=url, patience=_disk.deadline())
        at = Address.parse(env.orchestrator_ip)
        key = Path(env.key).name
        return Storage(
            root, identity, at.host, at.port, env.user, key, url, patience=_disk.deadline()
        )

    def open(self, *, force: bool, resume: bool, wanted: bool) -> None:
        """Take the folder: empty, to be resumed, or after its results are moved aside.

        Parameters
        ----------
        wanted
            Whether there must be results to resume from.

        Raises
        ------
        ConfigError
            If it holds results, and nothing is said about them; if it cannot be written; or if the
            bucket cannot be reached.
        """
        if self.storage.url:
            self._reach()
        if not resume:
            self._move_aside(force=force)
        if resume and self._mirror is not None:
            with self._reached():
                if self._mirror.bring():
                    self.note(f"what an earlier run did was found in {self.storage.url}")
        root = self.folder.root
        if wanted and not self.folder.variants.exists():
            raise ConfigError(
                Problem(
                    f"{root} holds no results to resume from", hint="run it without resume first"
                )
            )
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.folder.variants.unlink(missing_ok=True)
            if self.experiment.env is not None:
                self.folder.identity.write_text(self.storage.id, encoding="ascii")
        except OSError as error:
            raise ConfigError(f"cannot make the output folder {root}: {error.strerror}") from None
        if resume:
            self._same_storage()

    def _reach(self) -> None:
        if isinstance(self.experiment.config, Secrets):
            checkpoint_storage.variables.update(self.experiment.config.variables)
        with self._reached():
            self.checkpoints = self.storage.checkpoints()
            self._mirror = Mirror(self.folder, self.checkpoints, self.note)
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
    def _reached(self) -> Iterator[None]:
        """Say what is to be done where the bucket does not answer.

        Raises
        ------
        ConfigError
            Then.
        """
        try:
            yield
        except (OSError, ValueError) as error:  # settings of AWS that are none
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
            If there are any, and this was not asked for.
        """
        root, base, aside = self.folder.root, self.checkpoints.root, self.folder.aside()
        beside = posixpath.join(posixpath.dirname(base), aside.name)
        found: list[tuple[str, str, Callable[[], Any]]] = []
        if self._holds_results():
            found.append((str(root), str(aside), lambda: os.replace(root, aside)))
        if self._mirror is not None:
            with self._reached():
                if self._mirror.holds_results():
                    files = partial(self.checkpoints.move, base, beside)
                    found.append((self.storage.url, f"s3://{beside}", files))
        for place, target, move in found:
            if not force:
                raise ConfigError(
                    Problem(
                        f"{place} holds the results of an earlier run",
                        hint="--resume goes on with it; --force moves it aside and starts anew",
                    )
                )
            with self._reached():
                move()
            self.note(f"the earlier results were moved to {target}")

    def _holds_results(self) -> bool:
        """Whether there is more in the folder than what a run writes before its first variant."""
        folder = self.folder
        notes = (folder.state, folder.previous_state, folder.variants, folder.log, folder.config)
        known = {*notes, folder.hosts, folder.identity, folder.resources}
        if not folder.root.is_dir():
            return False
        names = [path for path in folder.root.iterdir() if not path.name.startswith(".")]
        return any(path not in known for path in names)

    def _same_storage(self) -> None:
        """See that what is gone on with has its checkpoints where this run looks for them.

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
                    f"storage: the checkpoints of the run to go on with are in {where}",
                    hint="--resume needs the same storage; --force starts anew with another one",
                )
            )

    def mirrored(self) -> None:
        """Begin to copy what is written in the folder to the bucket, if there is one.

        Raises
        ------
        ConfigError
            If nothing can be written there.
        """
        if self._mirror is not None:
            with self._reached():
                self._mirror.start()

    def remove_parts(self, variants: Iterable[VariantState]) -> None:
        """Remove checkpoints that are not whole: they are never read, and the disk may be full."""
        for one in variants:
            with contextlib.suppress(OSError):
                self.checkpoints.remove_parts(self.checkpoints.folder(one.stage, one.name))

    def close(self) -> None:
        """Copy to the bucket what was written last."""
        if self._mirror is not None:
            self._mirror.stop()
