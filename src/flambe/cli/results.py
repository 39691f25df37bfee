"""Runs whose output is on this machine: which folder is meant, and ``flambe results``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.cli import results_table
from flambe.cli.terminal import console
from flambe.errors import ConfigError, FlambeError, Problem, did_you_mean, listed
from flambe.progress import (
    RunFolder,
    Status,
    figure_text,
    interrupt,
    is_alive,
)

if TYPE_CHECKING:
    pass


def run_folder(path: Path, command: str = "site") -> RunFolder:
    """Return the run in a folder: itself, or the only one in there.

    Raises
    ------
    ConfigError
        If there is none, or there are several.
    """
    if not path.is_dir():
        raise ConfigError(
            Problem(f"there is no folder {path}", hint="the output of a run is there")
        )
    folder = RunFolder(path)
    runs = [one.parent for one in path.glob("output__*/state.json")]
    if folder.state.exists() or folder.previous_state.exists() or path.name.startswith("output__"):
        return folder
    if not runs:
        hint = "a run writes <save_path>/output__<name>, ./flambe-output/output__<name> by default"
        raise ConfigError(Problem(f"{path} holds no run", hint=hint))
    if len(runs) > 1:
        runs.sort(key=lambda one: RunFolder(one).state.stat().st_mtime, reverse=True)
        lines = "\n".join(f"  flambe {command} {one}   {_brief(RunFolder(one))}" for one in runs)
        raise ConfigError(f"{path} holds {len(runs)} runs, the latest first; choose one:\n{lines}")
    return RunFolder(runs[0])


def _brief(folder: RunFolder) -> str:
    """Return how a run stands, and since when."""
    state = folder.read_state()
    if state is None:
        return "its state cannot be read"
    if not is_alive(state):
        interrupt(state)
    when = state.ended or state.updated or 0.0
    return f"{state.outcome}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(when))}"


def show_results(options: argparse.Namespace) -> int:
    """Show the results of a run, or of one of its stages, and which is the best."""
    folder = run_folder(Path(options.folder), "results")
    run = folder.read_state()
    if run is None:
        raise ConfigError(Problem(f"{folder.root} holds no run that can be read"))
    names = [stage.name for stage in run.stages if stage.runs]
    if options.stage and options.stage not in names:
        hint = did_you_mean(options.stage, names) or f"there are: {listed(names)}"
        raise ConfigError(Problem(f"no stage {options.stage!r} of this run has results", hint=hint))
    entries = list(folder.read_variants().values())
    if not is_alive(run):
        interrupt(run)
        for entry in entries:
            entry.status = Status.INTERRUPTED if entry.status is Status.RUNNING else entry.status
    shown = console()
    most = len(entries) if options.all else results_table.RANKED
    for table in results_table.tables(run, entries, options.stage or "", most, shown.width):
        shown.print(table)
    shown.print(results_table.headline(run, entries), soft_wrap=True)
    if run.status in (Status.INTERRUPTED, Status.FAILED):
        shown.print("  to continue, run the same command with --resume", style="dim")
    best = results_table.best(run, entries, options.stage or "")
    if best is None:
        shown.print("  no variant has a figure yet", style="dim")
        return 0
    figure = figure_text(best.metric)
    shown.print(f"  the best     {results_table.title(best)}: {figure}", soft_wrap=True)
    call = results_table.loading(folder, run, best, _extensions(folder))
    shown.print(f"               {call}", soft_wrap=True)
    return 0


def _extensions(folder: RunFolder) -> list[str]:
    """Return the extensions that the configuration of a run declares."""
    from flambe.compile.reader.document import header

    try:
        return sorted(header(folder.config))
    except FlambeError:  # it was made in Python, or is gone
        return []
