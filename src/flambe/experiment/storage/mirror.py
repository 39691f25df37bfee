"""A copy of what a run writes on its host, in the bucket of its checkpoints."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyarrow.fs import FileSelector, FileType, LocalFileSystem, copy_files

from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.progress import RunFolder, RunState, Status

# Seconds between two copies: of the state and the journal, and of all else.
JOURNAL_PERIOD, PERIOD = 5.0, 30.0
# A run renews its state every 30 seconds at least: after SILENCE without that it is over. One that
# was silent for longer than RECENT, by whatever clock, is over at once.
SILENCE, RECENT, POLL_PERIOD = 45.0, 120.0, 3.0
PAUSES = (5.0, 15.0)  # seconds between two tries of the last copy
# A file of more bytes is copied again when it has grown by that part of itself, and at the end.
LARGE, GROWTH = 8 << 20, 8
CHUNK = 1 << 20


class Mirror:
    """Copies the state, the logs and the figures of a run beside its checkpoints.

    Parameters
    ----------
    folder
        The folder of the run.
    checkpoints
        Its checkpoints, in the bucket.
    notify
        Called with each message for the user.
    """

    def __init__(
        self, folder: RunFolder, checkpoints: Checkpoints, notify: Callable[[str], None]
    ) -> None:
        self.folder, self.notify = folder, notify
        self.root, self.bucket = checkpoints.root, checkpoints.files
        #: Name → bytes and time of what was copied.
        self._copied: dict[str, tuple[int, int]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    # -- what an earlier run left in the bucket ------------------------------------------------

    def holds_results(self) -> bool:
        """Whether the bucket has more than what a run writes before its first variant."""
        selector = FileSelector(self.root, allow_not_found=True)
        return any(info.type is FileType.Directory for info in self.bucket.get_file_info(selector))

    def state(self) -> RunState | None:
        """Return the state that was copied to the bucket last, or None."""
        with tempfile.TemporaryDirectory() as name:
            copied = RunFolder(Path(name))
            for path in (copied.state, copied.previous_state):
                with contextlib.suppress(FileNotFoundError):
                    self._download(path.name, path)
            return copied.read_state()

    def writer(self) -> RunState | None:
        """Return the state of a run that writes to the bucket from another folder, or None.

        Such a run renews its state at least every half minute. The lock of this folder must be
        held: a run that was started in it is over then.
        """
        state, here = self.state(), self.folder.read_state()
        if state is None or state.status is not Status.RUNNING:
            return None
        if here is not None and (here.started, here.pid) == (state.started, state.pid):
            return None
        if abs(time.time() - _updated(state)) > RECENT:
            return None
        self.notify(
            f"{self.root} was written a moment ago by process {state.pid} on {state.host}; "
            f"waiting up to {SILENCE:.0f} s to see whether it still is"
        )
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(min(POLL_PERIOD, SILENCE / 4))
            now = self.state()
            if now is None or now.status is not Status.RUNNING:
                return None
            if _updated(now) != _updated(state):
                return now
        return None

    def restore(self) -> bool:
        """Copy the bucket's files of the run to its folder, if they are newer; return whether."""
        here, state = self.folder.read_state(), self.state()
        if state is None or (here is not None and _updated(here) >= _updated(state)):
            return False
        selector = FileSelector(self.root, recursive=True)
        for info in self.bucket.get_file_info(selector):
            name = os.path.relpath(info.path, self.root)
            if info.type is FileType.File and _is_mirrored(name):
                self._download(name, self.folder.root / name)
        return True

    def _download(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source = f"{self.root}/{name}"
        copy_files(source, str(target), self.bucket, LocalFileSystem())

    # -- while the run is alive ----------------------------------------------------------------

    def start(self) -> None:
        """Copy all files, and from then on what changes.

        Raises
        ------
        OSError
            If it cannot be copied.
        """
        self.copy()
        self._thread = threading.Thread(target=self._run, name="flambe-mirror", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Copy what changed last."""
        self._over.set()
        if self._thread is None:
            return
        self._thread.join()
        for pause in (*PAUSES, None):
            try:
                self.copy(last=True)
            except OSError as error:
                if pause is not None:
                    time.sleep(pause)
                    continue
                text = f"logs and figures could not all be copied to {self.root}"
                self.notify(f"{text}: {error}; they are in {self.folder.root}")
            return

    def _run(self) -> None:
        failed, last = False, time.monotonic()
        while not self._over.wait(JOURNAL_PERIOD):
            everything = time.monotonic() - last >= PERIOD
            try:
                self.copy(everything=everything)
                failed, last = False, time.monotonic() if everything else last
            except OSError as error:
                if not failed:
                    self.notify(f"cannot write to {self.root}, and will try again: {error}")
                failed = True

    def copy(self, *, everything: bool = True, last: bool = False) -> None:
        """Copy what changed; but for the last time, large files only now and then.

        Parameters
        ----------
        everything
            Whether more is copied than the state and the journal of the run.

        Raises
        ------
        OSError
            If it cannot be.
        """
        journal = (self.folder.state, self.folder.variants)
        for name, path in self._files() if everything else ((p.name, p) for p in journal):
            try:
                status = path.stat()
                mark = (status.st_size, status.st_mtime_ns)
                copied = self._copied.get(name, (0, 0))
                growth = mark[0] - copied[0]
                little = copied[0] > LARGE and 0 <= growth < copied[0] // GROWTH
                if copied == mark or (little and not last and path not in journal):
                    continue
                source = open(path, "rb")
            except FileNotFoundError:  # it was replaced
                continue
            target = f"{self.root}/{name}"
            with source, self.bucket.open_output_stream(target, compression=None) as stream:
                shutil.copyfileobj(source, stream, CHUNK)
            self._copied[name] = mark

    def _files(self) -> Iterator[tuple[str, Path]]:
        root = self.folder.root
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [
                name
                for name in subfolders
                if _is_mirrored(os.path.relpath(Path(folder) / name, root))
            ]
            for name in sorted(names):
                path = Path(folder) / name
                relative = str(path.relative_to(root))
                if _is_mirrored(relative):
                    yield relative, path


def _updated(state: RunState) -> float:
    return state.updated or 0.0


def _is_mirrored(name: str) -> bool:
    """Whether a file of a run is neither of a checkpoint nor of a resource."""
    parts = Path(name).parts
    temporary = name.endswith(".tmp") or any(part.startswith(".") for part in parts)
    checkpoint = any(part.startswith("checkpoint") for part in parts[2:])
    return not (temporary or checkpoint or parts[0] == "resources")
