"""Which run is meant: a folder, or the name of a run that is below where runs are written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from flambe.cli.results import find_run
from flambe.cli.terminal import TextConsole, console
from flambe.errors import ConfigError, Problem, did_you_mean, listed
from flambe.experiment.observer import short_path
from flambe.logging import redact
from flambe.progress import RunFolder, RunRecord, run_folders
from flambe.progress.figures import with_names

OUTPUT, FETCHED, PREFIX = "flambe-output", "fetched", "output__"
ENDLESS = 10_000  # columns where the output is not a terminal: no line is cut for a program


def find_folders(base: Path) -> list[RunFolder]:
    """Return the runs below a folder, the latest first: where runs are written, and fetched."""
    places = [base, base / OUTPUT, *sorted((base / FETCHED).glob("*"))]
    # What is fetched keeps the folders that it had on the cluster.
    places += [below / OUTPUT for below in places[2:]]
    folders = {run.root.resolve(): run for place in places for run in run_folders(place)}
    return sorted(folders.values(), key=_written, reverse=True)


def _written(folder: RunFolder) -> float:
    times = [p.stat().st_mtime for p in (folder.state, folder.previous_state) if p.is_file()]
    return max(times, default=0.0)


def run_name(folder: RunFolder) -> str:
    """Return the name of a run, by its folder: of results moved aside, with the time of that."""
    return folder.root.absolute().name.removeprefix(PREFIX)


def select_run(text: str, command: str) -> RunRecord:
    """Return the run that an argument names.

    Raises
    ------
    ConfigError
        If there is none, or there are several, or its state cannot be read.
    """
    path = Path(text)
    # A folder beside the runs may be called like one of them, such as that of its code.
    is_path = "/" in text or text in (".", "..") or (path.is_dir() and bool(run_folders(path)))
    folder = find_run(path, command) if is_path else _named(text, command)
    record = RunRecord.read(folder)
    if record is None:
        raise ConfigError(Problem(f"the state of the run in {folder.root} cannot be read"))
    return record


def _named(text: str, command: str) -> RunFolder:
    folders = find_folders(Path())
    matches = [folder for folder in folders if text in (run_name(folder), folder.root.name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        lines = "\n".join(f"  flambe {command} {folder.root}" for folder in matches)
        raise ConfigError(f"there are {len(matches)} runs {text!r}; choose one:\n{lines}")
    names = list(dict.fromkeys(map(run_name, folders)))
    hint = did_you_mean(text, names) or (
        f"the runs: {listed(names[:10])}" if names else "flambe ls FOLDER   lists the runs there"
    )
    raise ConfigError(Problem(f"no run {text!r} in {short_path(Path.cwd())}", hint=hint))


def wide_console() -> TextConsole:
    """Return a console on stdout; where that is not a terminal, no line is cut."""
    screen = console()
    if not screen.is_terminal:
        screen.width = ENDLESS
    return screen


def plain_table() -> Table:
    """Return a table without lines: on a terminal it is quiet, and programs can split it."""
    return Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)


def print_table(screen: TextConsole, table: Table) -> None:
    """Print a table; where the output is not a terminal, without spaces at the ends of lines."""
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as capture:
        screen.print(table)
    for line in capture.get().splitlines():
        screen.print(line.rstrip(), soft_wrap=True)


def print_json(values: object) -> None:
    """Print JSON. Figures that are not finite are null, and named beside: see ``figures``."""
    json.dump(_plain(values), sys.stdout, indent=2, ensure_ascii=False, default=str)
    print()


def _plain(value: object) -> object:
    if isinstance(value, str):
        return redact.hide(value)
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in with_names(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return value


def when_text(seconds: float | None) -> str:
    """Return a time as people read it, in the zone of this machine."""
    if seconds is None:
        return ""
    try:
        moment = time.localtime(seconds)
    except (ValueError, OverflowError, OSError):  # times in a broken file may be anything
        return ""
    return time.strftime("%Y-%m-%d %H:%M", moment)


def iso_time(seconds: float | None) -> str | None:
    """Return a time in UTC for programs."""
    if seconds is None:
        return None
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return None


def parse_names(text: str, allowed: Iterable[str], option: str) -> list[str]:
    """Return the names in ``a,b``.

    Raises
    ------
    ConfigError
        If one is not allowed.
    """
    allowed = list(allowed)
    names = [name.strip() for name in text.split(",") if name.strip()]
    problems = [
        Problem(
            f"{option}: no column {name!r}",
            hint=did_you_mean(name, allowed) or f"the columns: {listed(allowed)}",
        )
        for name in names
        if name not in allowed
    ]
    if problems:
        raise ConfigError(problems)
    return names
