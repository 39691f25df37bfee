"""``flambe fetch``, and ``--fetch``: the results of a cluster, copied to this machine."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from flambe._grammar import wrong_path
from flambe.cli.targets import ClusterDisplay, awake, chosen
from flambe.cluster import job, layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import ConfigError, Problem, RemoteError, RunError, UnreachableError
from flambe.remote.resumable_copy import CONTINUES

PERIOD = 10.0  # seconds between two looks


# Prints the lines of a file that are folders; none, if there is no file.
_FOLDERS = '''[ ! -f "$1" ] || while IFS= read -r one; do
[ ! -d "$one" ] || printf '%s\\n' "$one"; done < "$1"'''


def results(host: ClusterHost, name: str) -> dict[str, str]:
    """Return the folders of the orchestrator with results of a cluster, and their places here.

    What is not in the folder that runs work in, since ``save_path`` says so, has its whole path
    here.

    Raises
    ------
    RunError
        If the host names one whose place here would be elsewhere.
    """
    folder = layout.of(host.agent.root, name)
    told = host.run(["sh", "-c", _FOLDERS, "sh", layout.beside(folder)], repeat=True).stdout
    lines = told.removesuffix("\n").split("\n") if told else []
    for path in lines:
        if not path.startswith("/") or wrong_path(path) or ".." in path.split("/"):
            raise RunError(
                f"{host.name}: it names {path!r} as a folder of results: nothing is brought"
            )
    return {f"{folder}/work/": "", **{f"{path}/": path.strip("/") for path in lines}}


def seen(host: ClusterHost, name: str) -> tuple[str, float, float]:
    """Return which run was there when the orchestrator was looked at last, and whether it is over.

    All of its results are here if they were brought here after such a look, and nothing is new at
    the next one. No clocks are compared: those of two machines differ.
    """
    run = host.report["runs"].get(name, {})
    return run.get("state", ""), run.get("started", 0), run.get("ended", 0)


def destination(name: str, given: str | None) -> Path:
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


def bring(host: ClusterHost, name: str, folder: Path) -> dict[str, str]:
    """Bring the results up to date here, and return :func:`results`; what was begun is continued.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    places = results(host, name)
    try:
        for place, below in places.items():
            host.fetch(place, folder / below)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from None
    return places


def _stream(host: ClusterHost, name: str, folder: Path) -> None:
    """Bring results here while they change: checkpoints that the run let go go here too."""
    there = set()
    for place, below in bring(host, name, folder).items():
        command = ["find", place, "-type", "d", "-name", "checkpoint_*", "-prune", "-print"]
        for line in host.run(command, repeat=True).stdout.splitlines():
            there.add(folder / below / line.removeprefix(place))
    inside = folder.resolve()
    for path in folder.glob("**/output__*/*/*/checkpoint_*"):
        if path not in there and path.resolve().is_relative_to(inside):
            shutil.rmtree(path, ignore_errors=True)


def remember(host: ClusterHost, name: str) -> None:
    """Note that the results of a cluster were brought here since its host was looked at."""
    files = host.files
    record = files.recall()
    if not record.is_empty:
        files.remember(replace(record, fetched=seen(host, name)))


def follow(host: ClusterHost, name: str, folder: Path) -> None:
    """Bring results here until the run ends, and once more then."""
    while True:
        host.refresh(name)
        is_over = host.report["runs"].get(name, {}).get("state") != job.RUNNING
        with contextlib.nullcontext() if is_over else contextlib.suppress(RemoteError):
            _stream(host, name, folder)  # a file may go while it is sent
        if is_over:
            return
        time.sleep(PERIOD)


@contextlib.contextmanager
def streamed(
    host: ClusterHost, name: str, folder: Path, note: Callable[[str], None]
) -> Iterator[None]:
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
        host.refresh(name)
        _stream(host, name, folder)
        remember(host, name)
        note(f"the results of {name} are in {folder}")
    finally:
        over.set()


# -- flambe fetch -------------------------------------------------------------------------------


def fetch(options: argparse.Namespace) -> int:
    """Bring the results of a cluster here."""
    shown = ClusterDisplay()
    with awake(options.cluster, options.secrets) as (name, members):
        (host,) = chosen(members, None)
        folder = destination(host.files.key, options.to)
        host.connect(note=shown.note)
        host.refresh(name)
        job.settle_lost(host, name)
        if options.follow:
            follow(host, name, folder)
        if not has_results(host, name):
            raise RunError(f"{host.name}: there are no results of {name} yet")
        if not options.follow:
            _bring(host, name, folder, options)
        remember(host, name)
    print(f"the results of {name} are in {folder}")
    return 0


def _bring(host: ClusterHost, name: str, folder: Path, options: argparse.Namespace) -> None:
    """Bring the results of a cluster here; if they are cut off, say what continues."""
    try:
        bring(host, name, folder)
    except UnreachableError as error:
        command = shlex.join(["flambe", "fetch", *filter(None, (options.cluster, options.to))])
        text = error.message.replace(CONTINUES, f"{command}   continues")
        raise UnreachableError(error.host, text) from None


def has_results(host: ClusterHost, name: str) -> bool:
    """Whether a run of a cluster left anything on its orchestrator."""
    # A folder that is empty is none.
    command = ["find", *results(host, name), "!", "-type", "d", "-print", "-quit"]
    return bool(host.run(command, check=False, repeat=True).stdout.strip())
