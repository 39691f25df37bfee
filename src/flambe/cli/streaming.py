"""Results that are brought here as they are made, while a run goes on."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flambe.cluster import launch, paths
from flambe.cluster.member import Member
from flambe.cluster.record import ClusterFiles
from flambe.errors import ConfigError, Problem, RemoteError, RunError

PERIOD = 10.0  # seconds between two looks


def results(host: Member, name: str) -> str:
    """Return where the results of a cluster are on its orchestrator."""
    return f"{paths.of(host.agent.root, name)}/work/"


def target(name: str, given: str | None) -> Path:
    """Return the folder that results are brought to.

    Raises
    ------
    ConfigError
        If it is a file.
    """
    folder = Path(given or f"fetched/{name}")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            Problem(f"{folder} is a file", hint="give a folder, which may be there or not")
        )
    return folder


def bring(host: Member, name: str, folder: Path) -> None:
    """Bring the results up to date here; what was begun is continued.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    try:
        host.fetch(results(host, name), folder)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from None


def _stream(host: Member, name: str, folder: Path) -> None:
    """Bring results here while they change: checkpoints that the run let go go here too."""
    bring(host, name, folder)
    root = results(host, name)
    command = ["find", root, "-type", "d", "-name", "checkpoint_*", "-prune", "-print"]
    there = {line.removeprefix(root) for line in host.run(command, repeat=True).stdout.splitlines()}
    for place in folder.glob("flambe-output/output__*/*/*/checkpoint_*"):
        if place.relative_to(folder).as_posix() not in there:
            shutil.rmtree(place, ignore_errors=True)


def remember(name: str) -> None:
    """Note that the results of a cluster were brought here."""
    files = ClusterFiles(name)
    if note := files.recall():
        files.remember({**note, "fetched": time.time()})


def follow(host: Member, name: str, folder: Path) -> None:
    """Bring results here until the run ends, and once more then."""
    while True:
        host.look(name)
        is_over = host.report["runs"].get(name, {}).get("state") != launch.RUNNING
        with contextlib.nullcontext() if is_over else contextlib.suppress(RemoteError):
            _stream(host, name, folder)  # a file may go while it is sent
        if is_over:
            return
        time.sleep(PERIOD)


@contextlib.contextmanager
def streamed(host: Member, name: str, folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Bring results here while something is done; all of them, when it is done.

    Parameters
    ----------
    host, name
        The orchestrator, and the cluster.
    folder
        Where to.
    note
        Told where they are.
    """
    over = threading.Event()

    def stream() -> None:
        while not over.wait(PERIOD):
            with contextlib.suppress(RunError):
                _stream(host, name, folder)

    thread = threading.Thread(target=stream, name="flambe-stream", daemon=True)
    thread.start()
    note(f"results are brought to {folder} as they are made")
    try:
        yield
        over.set()
        thread.join()
        _stream(host, name, folder)
        remember(name)
        note(f"the results of {name} are in {folder}")
    finally:
        over.set()
