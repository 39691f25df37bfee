"""The checkpoints of a run: which are whole, which is the latest, and which are kept."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.compile.state.file_writer import FileEntry, digest_of
from flambe.compile.state.pickled import CODE_SUFFIX
from flambe.errors import DamagedError, RunError
from flambe.experiment.retention import Retention, Selection
from flambe.experiment.storage.checkpoint_files import (
    file_sizes,
    files_below,
    list_folders,
    read_bytes,
)
from flambe.experiment.storage.manifest import DAMAGED, MANIFEST, Manifest
from flambe.progress import VariantState

if TYPE_CHECKING:  # imported when files are moved or removed
    from pyarrow.fs import FileInfo, FileSystem

#: The checkpoint of a variant that is at its end.
FINAL = "checkpoint"
#: The checkpoint that an unfinished variant continues from, out of the way of Tune's new ones.
RESUMED = "checkpoint_resumed"
#: The checkpoint of a variant with the best figure, if it is kept.
BEST = "checkpoint_best"
#: What others that are kept are called, with their step; Tune gives other names to its own.
STEP = "checkpoint_step_"
# S3 copies an object of this size at most by itself: docs.aws.amazon.com/AmazonS3/latest/API/
# API_CopyObject.html
MOST_COPIED = 5 * 2**30
MOVES_AT_ONCE = 16  # files


@dataclass(frozen=True)
class Settled:
    """The checkpoints that a variant keeps.

    Attributes
    ----------
    latest
        The path of the latest.
    size
        The bytes of all.
    """

    latest: str
    size: int


def _names(
    folder: str, selection: Selection, manifests: Mapping[str, Manifest], *, final: bool
) -> dict[str, str]:
    """Return what the checkpoints that are kept, but for the latest, are called from now on.

    The best one of a variant at its end has a name of its own; that is taken last, for another one
    may still have it.
    """
    best = selection.best[0] if final and selection.best else ""
    own = best if best not in selection.others and best != selection.latest else ""
    names = {
        path: f"{folder}/{STEP}{manifests[path].step:06d}"
        for path in manifests
        if path in selection and path not in (own, selection.latest)
    }
    return {**names, own: f"{folder}/{BEST}"} if own else names


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copy2(source, target)


class Checkpoints:
    """The checkpoints of a run, below one folder of a file system.

    Parameters
    ----------
    root
        The folder.
    files
        The file system; by default that of this host.
    """

    def __init__(self, root: str, files: FileSystem | None = None) -> None:
        self.root = root
        self._files = files

    @property
    def is_local(self) -> bool:
        """Whether they are on a disk of this host."""
        return self._files is None

    @functools.cached_property
    def files(self) -> FileSystem:
        """The file system."""
        if self._files is not None:
            return self._files
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def folder(self, stage: str, variant: str) -> str:
        """Return the folder of a variant.

        Raises
        ------
        RunError
            If the name is a path: the files of an earlier run were changed.
        """
        if "/" in variant or variant in ("", ".", ".."):
            raise RunError(f"{self.root}/{stage}: {variant!r} is not the name of a variant")
        return f"{self.root}/{stage}/{variant}"

    def manifest(self, checkpoint: str) -> Manifest | None:
        """Return the manifest of a checkpoint, or None if the checkpoint is not whole.

        The sizes of its files are compared, which costs little; :meth:`damage` compares all.
        """
        try:
            return self._complete(checkpoint)
        except OSError:
            if self.is_local:
                return None
            raise  # unknown: it could not be reached

    def _complete(self, checkpoint: str) -> Manifest | None:
        try:
            manifest = self._read_manifest(checkpoint)
            sizes = {f"{checkpoint}/{name}": e.size for name, e in manifest.files.items()}
            actual = file_sizes(list(sizes), self._files)
        except (FileNotFoundError, ValueError):
            return None
        return manifest if actual == list(sizes.values()) else None

    def _read_manifest(self, checkpoint: str) -> Manifest:
        return Manifest.parse(read_bytes(f"{checkpoint}/{MANIFEST}", self._files))

    def damage(self, checkpoint: str) -> str:
        """Return what is not as it was written in a checkpoint, naming the file; else nothing.

        All files are read. Those of versions that wrote no digests are compared by their sizes.

        Raises
        ------
        FileNotFoundError
            If it has no manifest: it is only a part.
        """
        try:
            manifest = self._read_manifest(checkpoint)
        except ValueError as error:
            return f"{checkpoint}/{MANIFEST}: {error}"
        for name, entry in manifest.files.items():
            # The codes of pickles are written again when a user trusts them, and prove themselves:
            # test_a_run_unpickles_nothing_that_somebody_else_wrote.
            compared = replace(entry, digest="") if name.endswith(CODE_SUFFIX) else entry
            if text := self._file_damage(f"{checkpoint}/{name}", compared):
                return f"{checkpoint}/{name} {text}"
        return ""

    def _file_damage(self, path: str, entry: FileEntry) -> str:
        try:
            if not entry.digest:
                size, digest = self.files.get_file_info(path).size or 0, ""
            else:
                with self.files.open_input_stream(path, compression=None) as stream:
                    actual = digest_of(stream, entry.method)
                size, digest = actual.size, actual.digest
        except FileNotFoundError:
            return "is missing"
        if size != entry.size:
            return f"has {size:,} bytes of {entry.size:,}"
        return "" if digest == entry.digest else "is not what was written (its SHA-256 differs)"

    def condemn(self, checkpoint: str) -> None:
        """Have nothing read a damaged checkpoint any more; its files stay.

        Nor one that is the same files by another name. Where that fails, it is found again.
        """
        same = [checkpoint]
        with contextlib.suppress(OSError, ValueError):
            manifest = self._read_manifest(checkpoint)
            twins = [p for p in self._all(posixpath.dirname(checkpoint)) if p != checkpoint]
            same += [p for p in twins if self.manifest(p) == manifest and self.damage(p)]
        for path in same:
            with contextlib.suppress(OSError):
                self.files.move(f"{path}/{MANIFEST}", f"{path}/{DAMAGED}")

    def _all(self, folder: str) -> list[str]:
        """Return the checkpoints in the folder of a variant, whole or not."""
        return [
            path
            for path in list_folders(folder, self._files)
            if posixpath.basename(path).startswith("checkpoint")
        ]

    def survey(self, folder: str) -> dict[str, Manifest | None]:
        """Return all checkpoints of a variant: first the parts (None), then whole ones by age.

        A checkpoint may have two names, :data:`BEST` and another: that one comes first.
        """
        manifests = {path: self.manifest(path) for path in self._all(folder)}

        def rank(path: str) -> tuple[tuple[int, int, bool], bool, str]:
            manifest = manifests[path]
            age = (-1, 0, False) if manifest is None else manifest.age
            return age, posixpath.basename(path) == BEST, path

        return {path: manifests[path] for path in sorted(manifests, key=rank)}

    def whole(self, folder: str) -> dict[str, Manifest]:
        """Return the checkpoints of a variant that are whole, the newest last."""
        return whole_of(self.survey(folder))

    def list_manifests(self) -> list[str]:
        """Return the paths of the manifests of all checkpoints, below the root."""
        below = files_below(self.root, self.files)
        return [posixpath.relpath(f.path, self.root) for f in below if f.base_name == MANIFEST]

    def latest(self, folder: str) -> str | None:
        """Return the newest checkpoint of a variant that is whole: see :attr:`Manifest.age`."""
        selection = Retention().select(self.whole(folder))
        return selection.latest if selection is not None else None

    def drop_damaged(self, folder: str) -> list[str]:
        """Condemn the newest checkpoints of a variant until one is as it was written.

        Returns
        -------
        list of str
            What is damaged, for people.

        Raises
        ------
        DamagedError
            If the disk does not let it be condemned.
        """
        damages: list[str] = []
        for path in self._all(folder):
            if self.manifest(path) is None:
                with contextlib.suppress(FileNotFoundError):  # only a part
                    damages += filter(None, [self.damage(path)])
                    self.condemn(path)
        while (latest := self.latest(folder)) is not None and (text := self.damage(latest)):
            damages.append(text)
            self.condemn(latest)
            if self.latest(folder) == latest:
                raise DamagedError(f"{text}; and it cannot be marked as damaged: remove {latest}")
        return damages

    def settle(
        self,
        folder: str,
        name: str,
        retention: Retention | None = None,
        *,
        spare_settled: bool = False,
    ) -> Settled | None:
        """Move the latest checkpoint of a variant to a name, and remove those not to be kept.

        The target is replaced only once the latest one is known to be whole, and the others are
        removed last: a run that is killed at any point in between leaves a whole checkpoint, which
        the next one settles (test_a_driver_that_is_killed).

        Parameters
        ----------
        folder
            The folder of the variant.
        name
            The name: :data:`FINAL`, if the variant is at its end.
        retention
            Which others are kept; by default none.
        spare_settled
            Whether those stay, too, that were kept when the variant ended.

        Returns
        -------
        Settled or None
            Where it is now; None if there is none.
        """
        manifests = self.whole(folder)
        selection = (retention or Retention()).select(manifests)
        if selection is None:
            return None
        names = _names(folder, selection, manifests, final=name == FINAL)
        for path, target in names.items():
            self._replace(path, target)
        latest = f"{folder}/{name}"
        self._replace(selection.latest, latest)
        kept, size = {*names.values(), latest}, 0
        if name == FINAL and selection.best and f"{folder}/{BEST}" not in kept:
            source = names.get(selection.best[0], latest)
            size += self._link(source, f"{folder}/{BEST}", manifests[selection.best[0]])
            kept.add(f"{folder}/{BEST}")
        for other in self._all(folder):
            settled = posixpath.basename(other).startswith((BEST, STEP))
            if other not in kept and not (spare_settled and settled):
                self.discard(other)
        size += sum(manifests[path].size for path in [*names, selection.latest])
        return Settled(latest, size)

    def _replace(self, source: str, target: str) -> None:
        """Move a checkpoint to a name; what has that name is removed."""
        if source != target:
            self.remove(target)
            self.move(source, target)

    def _link(self, source: str, target: str, manifest: Manifest) -> int:
        """Give a checkpoint a second name; return how many bytes that takes: none on a disk."""
        local = self.is_local
        if self.manifest(target) != manifest:
            self.remove(target)
            if local:
                shutil.copytree(source, target, copy_function=_link_file)
            else:
                self._copy_all(source, target)
        return 0 if local else manifest.size

    def remove(self, path: str) -> None:
        """Remove a checkpoint; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self.files.delete_dir(path)

    def discard(self, path: str) -> None:
        """Remove a checkpoint that is not in the way: where that fails, it stays."""
        with contextlib.suppress(OSError):
            self.remove(path)

    def remove_parts(self, variants: Iterable[VariantState]) -> None:
        """Remove what a full disk left of checkpoints: with its manifest, perhaps.

        The results of variants that are done were whole once: they are left as they are.
        """
        for entry in (variant for variant in variants if not variant.status.done):
            with contextlib.suppress(OSError):
                for path in self._all(self.folder(entry.stage, entry.name)):
                    if self._complete(path) is None:
                        self.discard(path)

    def move(self, source: str, target: str) -> None:
        """Move a folder to where nothing is; a checkpoint is whole at one of them all the time."""
        if self.is_local:
            self.files.create_dir(str(Path(target).parent))
            self.files.move(source, target)
            return
        self._copy_all(source, target)
        self.remove(source)

    def _copy_all(self, source: str, target: str) -> None:
        """Copy a folder; a bucket does so by itself, file by file."""
        infos = files_below(source, self.files)
        with ThreadPoolExecutor(max_workers=MOVES_AT_ONCE) as pool:
            for last in (False, True):
                batch = [info for info in infos if (info.base_name == MANIFEST) is last]
                list(pool.map(lambda info: self._copy(info, source, target), batch))

    def _copy(self, info: FileInfo, source: str, target: str) -> None:
        path = target + info.path.removeprefix(source)
        if info.size <= MOST_COPIED:
            self.files.copy_file(info.path, path)
        else:
            from pyarrow.fs import copy_files

            copy_files(info.path, path, self.files, self.files)


def whole_of(survey: Mapping[str, Manifest | None]) -> dict[str, Manifest]:
    """Return what is whole of :meth:`Checkpoints.survey`."""
    return {path: manifest for path, manifest in survey.items() if manifest is not None}


def read_manifest(checkpoint: Path) -> Manifest | None:
    """Return the manifest of a checkpoint of this host, or None if it is not whole."""
    return Checkpoints("").manifest(str(checkpoint))
