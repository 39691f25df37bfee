"""How much room a run takes, by stage, and what of it could be removed: looked up on request.

It lists every file of a run once, which takes a while for a large one: nothing calls it while a run
continues.
"""

from __future__ import annotations

import enum
import os
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from pyarrow.fs import FileSelector, FileType

from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.manifest import MANIFEST
from flambe.progress import RunFolder, VariantState

#: The folder that results of stages are moved to which are run again by ``--resume-from``.
EARLIER = "earlier"


class Purpose(str, enum.Enum):
    """What a checkpoint is for."""

    #: Of a variant of the run.
    KEPT = "kept"
    #: Of a variant of the run that ``reduce`` dropped: nothing builds on it.
    DROPPED = "dropped"
    #: Of an earlier configuration, or of results that were moved aside.
    EARLIER = "earlier"
    #: Not whole: it was being written when its process was killed. Nothing reads it.
    PART = "part"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a run, or a part of one.

    Attributes
    ----------
    path
        Its folder: a path on this host, or in the bucket without ``s3://``.
    stage, variant
        The stage, and the name of the folder of the variant.
    size
        How many bytes it takes.
    purpose
        What it is for.
    """

    path: str
    stage: str
    variant: str
    size: int
    purpose: Purpose


@dataclass(frozen=True)
class DiskUse:
    """How much room a run takes.

    Attributes
    ----------
    checkpoints
        Its checkpoints.
    other
        Stage → bytes of logs and figures of its variants; ``""`` → those of the run itself.
    """

    checkpoints: tuple[StoredCheckpoint, ...] = ()
    other: Mapping[str, int] = field(default_factory=dict)

    def size(self, stage: str | None = None, purpose: Purpose | None = None) -> int:
        """Return the bytes of checkpoints: of all, or of a stage, or of a purpose."""
        return sum(
            checkpoint.size
            for checkpoint in self.checkpoints
            if stage in (None, checkpoint.stage) and purpose in (None, checkpoint.purpose)
        )

    @property
    def total(self) -> int:
        """The bytes of all files."""
        return self.size() + sum(self.other.values())


def measure(
    folder: RunFolder,
    checkpoints: Checkpoints | None = None,
    variants: Collection[VariantState] | None = None,
) -> DiskUse:
    """Return how much room a run takes.

    Parameters
    ----------
    folder
        The folder of the run.
    checkpoints
        Its checkpoints, if they are in a bucket: what is in the folder is counted too.
    variants
        The variants of the run; by default, those that its journal says.

    Raises
    ------
    OSError
        If the folder, or the bucket, cannot be listed.
    """
    entries = folder.read_variants().values() if variants is None else variants
    purposes = {
        (entry.stage, entry.name): Purpose.DROPPED if entry.kept is False else Purpose.KEPT
        for entry in entries
    }
    local = Checkpoints(str(folder.root))
    stored: dict[str, _Folder] = {}
    other: dict[str, int] = defaultdict(int)
    stages = {entry.stage for entry in entries}
    apart = [] if checkpoints is None or checkpoints.root == local.root else [checkpoints]
    for source in (local, *apart):
        for name, size in _files(source):
            parts = name.split("/")
            aside = 2 if parts[0] == EARLIER else 0
            own = parts[aside:]
            if len(own) > 3 and own[2].startswith(("checkpoint", ".saving-")):
                path = posixpath.join(source.root, *parts[: aside + 3])
                entry = stored.setdefault(path, _Folder(own[0], own[1], bool(aside)))
                entry.size += size
                entry.has_manifest |= own[3:] == [MANIFEST]
            elif source is local:  # the rest of a bucket is a copy of it
                other[own[0] if len(own) > 1 and own[0] in stages else ""] += size
    return DiskUse(
        tuple(
            StoredCheckpoint(path, f.stage, f.variant, f.size, f.purpose(purposes))
            for path, f in stored.items()
        ),
        dict(other),
    )


@dataclass
class _Folder:
    stage: str
    variant: str
    aside: bool
    size: int = 0
    has_manifest: bool = False

    def purpose(self, purposes: Mapping[tuple[str, str], Purpose]) -> Purpose:
        if not self.has_manifest:
            return Purpose.PART
        if self.aside:
            return Purpose.EARLIER
        return purposes.get((self.stage, self.variant), Purpose.EARLIER)


def _files(checkpoints: Checkpoints) -> Iterator[tuple[str, int]]:
    """Yield the files below a root, and the bytes that each adds: none, if it is a further link."""
    root = checkpoints.root
    if checkpoints.is_local:
        yield from _local_files(root)
        return
    selector = FileSelector(root, recursive=True, allow_not_found=True)
    for info in checkpoints.files.get_file_info(selector):
        if info.type is FileType.File:
            yield posixpath.relpath(info.path, root), info.size


def _local_files(root: str) -> Iterator[tuple[str, int]]:
    linked: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:  # it was removed meanwhile
                continue
            size, inode = status.st_size, (status.st_dev, status.st_ino)
            if status.st_nlink > 1:
                size = 0 if inode in linked else size
                linked.add(inode)
            yield os.path.relpath(path, root), size
