"""Runs whose output is on this machine: which folder is meant, and ``flambe results``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.cli import results
from flambe.cli.terminal import console
from flambe.errors import ConfigError, FlambeError, Problem, did_you_mean, listed
from flambe.progress import (
    RunFolder,
    RunState,
    Status,
    figure_text,
    interrupt,
    is_alive,
    read_state_text,
)

if TYPE_CHECKING:
    from flambe.cluster.cluster_host import ClusterHost


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
    most = len(entries) if options.all else results.RANKED
    for table in results.tables(run, entries, options.stage or "", most, shown.width):
        shown.print(table)
    shown.print(results.headline(run, entries), soft_wrap=True)
    if run.status in (Status.INTERRUPTED, Status.FAILED):
        shown.print("  to continue, run the same command with --resume", style="dim")
    best = results.best(run, entries, options.stage or "")
    if best is None:
        shown.print("  no variant has a figure yet", style="dim")
        return 0
    figure = figure_text(best.metric)
    shown.print(f"  the best     {results.title(best)}: {figure}", soft_wrap=True)
    call = results.loading(folder, run, best, _extensions(folder))
    shown.print(f"               {call}", soft_wrap=True)
    return 0


def _extensions(folder: RunFolder) -> list[str]:
    """Return the extensions that the configuration of a run declares."""
    from flambe.compile.reader.document import header

    try:
        return sorted(header(folder.config))
    except FlambeError:  # it was made in Python, or is gone
        return []


#: What became of a run that could not say so itself.
INTERRUPTED = "interrupted: it was killed, or its host went down"

# Prints the newest state of a run in some folders, if there is one.
_NEWEST = """\
for one; do ls -1dt "$one"output__*/state.json "$one"*/output__*/state.json; done 2>/dev/null |
head -n 1 | while IFS= read -r one; do cat "$one"; done"""


def newest_run(host: ClusterHost, name: str) -> RunState | None:
    """Return the state of the experiment that a cluster runs or ran last; None if it was none."""
    from flambe.cli import live_results

    started = host.report["runs"].get(name, {}).get("started", 0.0)
    try:
        folders = list(live_results.results(host, name))
        text = host.run(["sh", "-c", _NEWEST, "sh", *folders], repeat=True).stdout
        run = read_state_text(text)
    except (FlambeError, ValueError, TypeError, KeyError, RecursionError):
        return None
    # Else it was of an earlier run.
    return run if (run.started or 0.0) >= started else None


def counted_variants(run: RunState) -> str:
    """Return ``3 of 12 variants done``, of all stages."""
    stages = [stage for stage in run.stages if stage.runs]
    done = sum(n for s in stages for status, n in s.counts.items() if status in _DONE)
    planned = sum(stage.total - stage.counts.get(Status.MASKED.value, 0) for stage in stages)
    failed = f", {run.failed} failed" if run.failed and run.status is not Status.FINISHED else ""
    return f"{done} of {planned} variants done{failed}"


_DONE = {status.value for status in Status if status.done}
