"""The checkpoints of a run: which are whole, which is the latest, and which are kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from flambe.errors import RunError
from flambe.progress import named_value, with_names

CHECKPOINT = "checkpoint.flambe"
#: The state of the random number generators of the process, beside it.
RANDOM = "random.flambe"
#: What a checkpoint ends with: a folder without it, or with other files than it names, is not
#: whole.
MANIFEST = "manifest.json"
#: The checkpoint of a variant that is at its end.
FINAL = "checkpoint"
#: The checkpoint that an unfinished variant continues from, out of the way of Tune's new ones.
RESUMED = "checkpoint_resumed"
# What Tune leaves beside the variants of a stage, and in their folders.
_OF_TUNE = (
    "*.pkl",
    "*/error.pkl",
    "*/error.txt",
    "experiment_state-*.json",
    "searcher-state-*",
    ".validate_storage*",
    "basic-variant-state-*",
    "search_gen_state-*",
)
# S3 copies an object of this size at most by itself: docs.aws.amazon.com/AmazonS3/latest/API/
# API_CopyObject.html
MOST_COPIED = 5 * 2**30
MOVES_AT_ONCE = 16  # files
UPKEEPS_AT_ONCE = 8  # checkpoints


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Attributes
    ----------
    variant
        The id of its variant.
    attempt
        Which attempt at the variant wrote it.
    step, metric, best
        How many steps were done, the latest figure, and the best so far.
    done
        Whether the variant is at its end.
    generator
        Whether its ``run()`` is a generator, which cannot be continued.
    files
        Path below the checkpoint → bytes.
    """

    step: int
    variant: str = ""
    attempt: int = 0
    metric: float | None = None
    best: float | None = None
    done: bool = False
    generator: bool = False
    files: Mapping[str, int] = field(default_factory=dict)

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(with_names(vars(self)), allow_nan=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Read what :meth:`dump` wrote, or an earlier version.

        Raises
        ------
        ValueError
            If it is not a manifest.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        step, files = values.get("step"), values.get("files")
        attempt = values.get("attempt", 0)
        if not isinstance(step, int) or not isinstance(files, dict) or not isinstance(attempt, int):
            raise ValueError("the steps or the files are missing")
        return cls(
            step,
            str(values.get("variant", "")),
            attempt,
            _figure(named_value("metric", values.get("metric"), values)),
            _figure(named_value("best", values.get("best"), values)),
            bool(values.get("done")),
            bool(values.get("generator")),
            files,
        )


def _figure(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


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
        self.files = LocalFileSystem() if files is None else files

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
        """Return the manifest of a checkpoint, or None if the checkpoint is not whole."""
        try:
            with self.files.open_input_stream(
                f"{checkpoint}/{MANIFEST}", compression=None
            ) as stream:
                manifest = Manifest.parse(stream.read())
            sizes = {f"{checkpoint}/{name}": size for name, size in manifest.files.items()}
            infos = self.files.get_file_info(list(sizes))
        except (FileNotFoundError, ValueError):
            return None
        except OSError:
            if isinstance(self.files, LocalFileSystem):
                return None
            raise  # unknown: it could not be reached
        return manifest if all(info.size == sizes[info.path] for info in infos) else None

    def _all(self, folder: str) -> list[str]:
        """Return the checkpoints in the folder of a variant, whole or not."""
        infos = self.files.get_file_info(FileSelector(folder, allow_not_found=True))
        return [
            info.path
            for info in infos
            if info.type is FileType.Directory and info.base_name.startswith("checkpoint")
        ]

    def latest(self, folder: str) -> str | None:
        """Return the whole checkpoint of a variant with the most steps, if there is one.

        Of two with the same number of steps, the one at the end of the variant. What an earlier
        attempt writes late, from a host that was given up, never counts as newer.
        """
        manifests = {path: self.manifest(path) for path in self._all(folder)}
        steps = [
            (manifest.attempt, manifest.step, manifest.done, path)
            for path, manifest in manifests.items()
            if manifest is not None
        ]
        return max(steps)[-1] if steps else None

    def settle(self, folder: str, name: str) -> str | None:
        """Move the latest checkpoint of a variant to a name, and remove the others.

        The target is replaced only once the latest one is known to be whole, and the others are
        removed last: a run that is killed at any point in between leaves a whole checkpoint, which
        the next one settles (test_a_driver_that_is_killed).

        Returns
        -------
        str or None
            Where it is now.
        """
        latest = self.latest(folder)
        if latest is None:
            return None
        target = f"{folder}/{name}"
        if latest != target:
            self.remove(target)
            self.move(latest, target)
        for other in self._all(folder):
            if other != target:
                self.discard(other)
        return target

    def remove(self, path: str) -> None:
        """Remove a checkpoint; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self.files.delete_dir(path)

    def discard(self, path: str) -> None:
        """Remove a checkpoint that is not in the way: where that fails, it stays."""
        with contextlib.suppress(OSError):
            self.remove(path)

    def remove_parts(self, folder: str) -> None:
        """Remove checkpoints of a variant that are not whole: they are never read."""
        for path in self._all(folder):
            if self.manifest(path) is None:
                self.discard(path)

    def remove_tune_files(self, stage: str) -> None:
        """Remove what Tune leaves in a stage; flambe resumes from its own checkpoints."""
        folder = f"{self.root}/{stage}"
        for info in self._below(folder):
            name = Path(info.path).relative_to(folder)
            # Patterns of one level do not match names of another.
            if any(len(name.parts) == p.count("/") + 1 and name.match(p) for p in _OF_TUNE):
                with contextlib.suppress(FileNotFoundError):
                    self.files.delete_file(info.path)

    def _below(self, folder: str) -> Sequence[FileInfo]:
        selector = FileSelector(folder, recursive=True, allow_not_found=True)
        return [info for info in self.files.get_file_info(selector) if info.type is FileType.File]

    def move(self, source: str, target: str) -> None:
        """Move a folder to where nothing is; a checkpoint is whole at one of them all the time."""
        if isinstance(self.files, LocalFileSystem):
            self.files.create_dir(str(Path(target).parent))
            self.files.move(source, target)
            return
        # A bucket has no folders: each file is copied there, by the bucket itself.
        infos = self._below(source)
        with ThreadPoolExecutor(max_workers=MOVES_AT_ONCE) as pool:
            for last in (False, True):
                batch = [info for info in infos if (info.base_name == MANIFEST) is last]
                list(pool.map(lambda info: self._copy(info, source, target), batch))
        self.remove(source)

    def _copy(self, info: FileInfo, source: str, target: str) -> None:
        path = target + info.path.removeprefix(source)
        if info.size <= MOST_COPIED:
            self.files.copy_file(info.path, path)
        else:
            copy_files(info.path, path, self.files, self.files)


class Upkeep:
    """Moves and removes checkpoints beside the run: where they are in a bucket, that takes time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(UPKEEPS_AT_ONCE, thread_name_prefix="flambe-upkeep")
        self._pending: list[Future[None]] = []
        #: The folder of a variant → what removes checkpoints in it.
        self._removals: dict[str, list[Future[None]]] = {}

    def remove(self, checkpoints: Checkpoints, path: str) -> None:
        """Remove a checkpoint; where that fails, it is removed at the end of its variant."""
        folder = path.rpartition("/")[0]
        pending = [removal for removal in self._removals.get(folder, ()) if not removal.done()]
        self._removals[folder] = [*pending, self._pool.submit(checkpoints.discard, path)]

    def settle(self, checkpoints: Checkpoints, folder: str, name: str) -> None:
        """See :meth:`Checkpoints.settle`."""
        removals = self._removals.pop(folder, [])

        def settle() -> None:
            wait(removals)  # they were begun before this
            checkpoints.settle(folder, name)

        self._pending.append(self._pool.submit(settle))

    def wait_settled(self) -> None:
        """Wait until all are settled.

        Raises
        ------
        RunError
            If one cannot be.
        """
        try:
            while self._pending:
                self._pending.pop().result()
        except OSError as error:
            hint = "to continue, run the same command with --resume"
            raise RunError(f"a checkpoint cannot be moved: {error}\n  {hint}") from error

    def close(self) -> None:
        """Wait until everything is done."""
        self._pool.shutdown()


def read_manifest(checkpoint: Path) -> Manifest | None:
    """Return the manifest of a checkpoint of this host, or None if it is not whole."""
    return Checkpoints("").manifest(str(checkpoint))
