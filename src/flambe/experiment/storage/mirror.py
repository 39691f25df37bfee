"""What a run writes on its host, copied to the bucket where its checkpoints are."""

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
# A run renews its state every 30 seconds at least: one that has not for SILENCE is over. Who was
# silent for longer than RECENT before, by whatever clock, is not waited for.
SILENCE, RECENT, LOOK_PERIOD = 45.0, 120.0, 3.0
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
    there
        Where its checkpoints are.
    note
        Told what people want to know.
    """

    def __init__(self, folder: RunFolder, there: Checkpoints, note: Callable[[str], None]) -> None:
        self.folder, self.there, self.note = folder, there, note
        #: Name → bytes and time of what was copied.
        self._copied: dict[str, tuple[int, int]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    # -- what an earlier run left there -------------------------------------------------------

    def holds_results(self) -> bool:
        """Whether there is more there than what a run writes before its first variant."""
        selector = FileSelector(self.there.root, allow_not_found=True)
        return any(
            info.type is FileType.Directory for info in self.there.files.get_file_info(selector)
        )

    def state(self) -> RunState | None:
        """Return the state of the run that was copied there last; None if there is none."""
        with tempfile.TemporaryDirectory() as beside:
            there = RunFolder(Path(beside))
            for path in (there.state, there.previous_state):
                with contextlib.suppress(FileNotFoundError):
                    self._bring(path.name, path)
            return there.read_state()

    def writer(self) -> RunState | None:
        """Return the state of a run that writes there from another folder; None if none does.

        It renews its state at least every half minute. The lock of this folder must be held: a run
        that was begun in it is over then.
        """
        state, here = self.state(), self.folder.read_state()
        if state is None or state.status is not Status.RUNNING:
            return None
        if here is not None and (here.started, here.pid) == (state.started, state.pid):
            return None
        if abs(time.time() - _time(state)) > RECENT:
            return None
        self.note(
            f"{self.there.root} was written a moment ago by process {state.pid} on {state.host}; "
            f"waiting up to {SILENCE:.0f} s to see whether it still is"
        )
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(min(LOOK_PERIOD, SILENCE / 4))
            now = self.state()
            if now is None or now.status is not Status.RUNNING:
                return None
            if _time(now) != _time(state):
                return now
        return None

    def bring(self) -> bool:
        """Copy what is there to here, if it is newer; return whether it was."""
        here, state = self.folder.read_state(), self.state()
        if state is None or (here is not None and _time(here) >= _time(state)):
            return False
        selector = FileSelector(self.there.root, recursive=True)
        for info in self.there.files.get_file_info(selector):
            name = os.path.relpath(info.path, self.there.root)
            if info.type is FileType.File and _is_ours(name):
                self._bring(name, self.folder.root / name)
        return True

    def _bring(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source = f"{self.there.root}/{name}"
        copy_files(source, str(target), self.there.files, LocalFileSystem())

    # -- while the run goes on ----------------------------------------------------------------

    def start(self) -> None:
        """Copy what there is, and from then on what changes.

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
                text = f"logs and figures could not all be copied to {self.there.root}"
                self.note(f"{text}: {error}; they are in {self.folder.root}")
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
                    self.note(f"cannot write to {self.there.root}, it is tried again: {error}")
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
                known = self._copied.get(name, (0, 0))
                grown = mark[0] - known[0]
                little = known[0] > LARGE and 0 <= grown < known[0] // GROWTH
                if known == mark or (little and not last and path not in journal):
                    continue
                source = open(path, "rb")
            except FileNotFoundError:  # it was replaced
                continue
            target = f"{self.there.root}/{name}"
            with source, self.there.files.open_output_stream(target, compression=None) as stream:
                shutil.copyfileobj(source, stream, CHUNK)
            self._copied[name] = mark

    def _files(self) -> Iterator[tuple[str, Path]]:
        root = self.folder.root
        for place, folders, names in os.walk(root):
            folders[:] = [n for n in folders if _is_ours(os.path.relpath(Path(place) / n, root))]
            for name in sorted(names):
                path = Path(place) / name
                relative = str(path.relative_to(root))
                if _is_ours(relative):
                    yield relative, path


def _time(state: RunState) -> float:
    return state.updated or 0.0


def _is_ours(name: str) -> bool:
    """Whether a file of a run is neither of a checkpoint nor of a resource."""
    parts = Path(name).parts
    passing = name.endswith(".tmp") or any(part.startswith(".") for part in parts)
    checkpoint = any(part.startswith("checkpoint") for part in parts[2:])
    return not (passing or checkpoint or parts[0] == "resources")
