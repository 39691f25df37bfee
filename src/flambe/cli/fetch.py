"""``flambe fetch``, and ``--fetch``: the results of a cluster, copied to this machine."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from flambe._grammar import wrong_path
from flambe.cli.targets import ClusterDisplay, running_hosts, select_host
from flambe.cluster import job, layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.errors import ConfigError, Problem, RemoteError, RunError, UnreachableError
from flambe.remote.resumable_copy import CONTINUES

PERIOD = 10.0  # seconds between two copies while a run is in progress


# Prints the lines of a file that name folders; nothing, if there is no file.
_FOLDERS = """[ ! -f "$1" ] || while IFS= read -r folder; do
[ ! -d "$folder" ] || printf '%s\\n' "$folder"; done < "$1" """


@dataclass(frozen=True)
class FetchOptions:
    """The options of ``flambe fetch``."""

    cluster: str
    to: str | None = None
    follow: bool = False
    secrets: str | None = None


def fetch(options: FetchOptions) -> int:
    """Copy the results of a cluster to this machine."""
    display = ClusterDisplay()
    with running_hosts(options.cluster, options.secrets) as (name, hosts):
        host = select_host(hosts)
        folder = destination(host.files.key, options.to)
        host.connect(notify=display.note)
        host.refresh(name)
        job.record_interruption(host, name)
        if options.follow:
            follow(host, name, folder)
        if not has_results(host, name):
            raise RunError(f"{host.name}: no results of {name} yet")
        if not options.follow:
            _copy_once(host, name, folder, options)
        record_fetched(host, name)
    print(f"the results of {name} are in {folder}")
    return 0


def _copy_once(host: ClusterHost, name: str, folder: Path, options: FetchOptions) -> None:
    """Copy the results; if the connection is lost, name the command that continues."""
    try:
        copy(host, name, folder)
    except UnreachableError as error:
        command = shlex.join(["flambe", "fetch", *filter(None, (options.cluster, options.to))])
        text = error.message.replace(CONTINUES, f"{command}   continues")
        raise UnreachableError(error.host, text) from None


def has_results(host: ClusterHost, name: str) -> bool:
    """Whether a run of a cluster left files on its orchestrator."""
    # Empty folders do not count.
    command = ["find", *result_folders(host, name), "!", "-type", "d", "-print", "-quit"]
    return bool(host.run(command, check=False, repeat=True).stdout.strip())


def result_folders(host: ClusterHost, name: str) -> dict[str, str]:
    """Return the folders on the orchestrator with results of a cluster → folders to copy them to.

    Those are relative to the destination. A ``save_path`` outside the working folder of runs has
    its whole path there.

    Raises
    ------
    RunError
        If the host names a folder that would be copied elsewhere.
    """
    folder = layout.of(host.agent.root, name)
    command = ["sh", "-c", _FOLDERS, "sh", layout.external_results(folder)]
    output = host.run(command, repeat=True).stdout
    lines = output.removesuffix("\n").split("\n") if output else []
    for path in lines:
        if not path.startswith("/") or wrong_path(path) or ".." in path.split("/"):
            raise RunError(
                f"{host.name}: it names {path!r} as a folder of results: nothing is copied"
            )
    return {f"{folder}/work/": "", **{f"{path}/": path.strip("/") for path in lines}}


def run_version(host: ClusterHost, name: str) -> tuple[str, float, float]:
    """Return which run the orchestrator had in its latest report, and whether it was over.

    All of its results are here if they were copied after such a report, and the next report says
    the same. No clocks are compared: those of two machines differ.
    """
    run = host.report.runs.get(name)
    return (run.state.value, run.started, run.ended or 0) if run is not None else ("", 0, 0)


def destination(name: str, path: str | None) -> Path:
    """Return the folder that results are copied to.

    Raises
    ------
    ConfigError
        If it is a file.
    """
    folder = Path(path or f"fetched/{name}")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(Problem(f"{folder} is a file", hint="give a folder, existing or new"))
    return folder


def copy(host: ClusterHost, name: str, folder: Path) -> dict[str, str]:
    """Copy what is new in the results, and return :func:`result_folders`.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    folders = result_folders(host, name)
    try:
        for source, below in folders.items():
            host.fetch(source, folder / below)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror}") from None
    return folders


def _sync(host: ClusterHost, name: str, folder: Path) -> None:
    """Copy results while they change, and remove the checkpoints here that the run removed."""
    checkpoints = set()
    for source, below in copy(host, name, folder).items():
        command = ["find", source, "-type", "d", "-name", "checkpoint_*", "-prune", "-print"]
        for line in host.run(command, repeat=True).stdout.splitlines():
            checkpoints.add(folder / below / line.removeprefix(source))
    inside = folder.resolve()
    for path in folder.glob("**/output__*/*/*/checkpoint_*"):
        if path not in checkpoints and path.resolve().is_relative_to(inside):
            shutil.rmtree(path, ignore_errors=True)


def record_fetched(host: ClusterHost, name: str) -> None:
    """Record that the results of a cluster were copied after the latest report of its host."""
    files = host.files
    record = files.recall()
    if not record.is_empty:
        files.remember(replace(record, fetched=run_version(host, name)))


def follow(host: ClusterHost, name: str, folder: Path) -> None:
    """Copy results until the run ends, and once more then."""
    while True:
        host.refresh(name)
        run = host.report.runs.get(name)
        is_over = run is None or not run.runs
        with contextlib.nullcontext() if is_over else contextlib.suppress(RemoteError):
            _sync(host, name, folder)  # a file may be removed while it is copied
        if is_over:
            return
        time.sleep(PERIOD)


@contextlib.contextmanager
def copied_meanwhile(
    host: ClusterHost, name: str, folder: Path, notify: Callable[[str], None]
) -> Iterator[None]:
    """Copy results in the background, and all of them at the end.

    Parameters
    ----------
    host, name
        The orchestrator, and the cluster.
    folder
        Where to copy them to.
    notify
        Called with messages that say where they are.
    """
    over = threading.Event()

    def sync_periodically() -> None:
        while not over.wait(PERIOD):
            with contextlib.suppress(RunError):
                _sync(host, name, folder)

    thread = threading.Thread(target=sync_periodically, name="flambe-fetch", daemon=True)
    thread.start()
    notify(f"results are copied to {folder} while the run writes them")
    try:
        yield
        over.set()
        thread.join()
        host.refresh(name)
        _sync(host, name, folder)
        record_fetched(host, name)
        notify(f"the results of {name} are in {folder}")
    finally:
        over.set()
