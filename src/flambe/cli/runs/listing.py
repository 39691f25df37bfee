"""``flambe ls``: the runs in a folder."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from flambe.cli.results import status_mark
from flambe.cli.runs.former import list_former
from flambe.cli.runs.selection import (
    find_folders,
    iso_time,
    plain_table,
    print_json,
    print_table,
    run_name,
    when_text,
    wide_console,
)
from flambe.errors import ConfigError, Problem
from flambe.experiment.observer import short_path, variant_label
from flambe.progress import (
    RunFolder,
    RunRecord,
    RunState,
    Status,
    figure_text,
    format_duration,
    steady_time,
)


@dataclass(frozen=True)
class LsOptions:
    """The options of ``flambe ls``."""

    folder: str = "."
    stale: bool = False
    json: bool = False


def list_runs(options: LsOptions) -> int:
    """List the runs in a folder, the latest first."""
    base = Path(options.folder)
    if not base.is_dir():
        raise ConfigError(Problem(f"no such folder: {base}", hint="flambe ls   lists those here"))
    if options.stale:
        return list_former(find_folders(base), as_json=options.json)
    records = [(folder, RunRecord.read(folder)) for folder in find_folders(base)]
    if options.json:
        print_json([_entry(folder, record) for folder, record in records])
        return 0
    screen = wide_console()
    if not records:
        screen.print(f"no runs in {base}, its flambe-output and its fetched", style="dim")
        return 0
    names = [run_name(folder) for folder, _ in records]
    table = plain_table()
    table.add_column("name", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("when", no_wrap=True, style="dim")
    table.add_column("time", no_wrap=True, justify="right")
    table.add_column("variants", no_wrap=True, justify="right")
    table.add_column("best", overflow="ellipsis", no_wrap=True)
    if is_ambiguous := len(set(names)) < len(names):
        table.add_column("folder", overflow="fold", style="dim")
    for name, (folder, record) in zip(names, records, strict=True):
        cells: list[str | Text] = [name, *_cells(record)]
        table.add_row(*cells, *([str(short_path(folder.root))] if is_ambiguous else []))
    print_table(screen, table)
    return 0


def _cells(record: RunRecord | None) -> list[str | Text]:
    if record is None:
        return [Text("unreadable", "red"), "", "", "", ""]
    run = record.run
    sign, style = status_mark(run.status, run.failed)
    seconds = run_seconds(run)
    return [
        Text(f"{sign} {run.outcome}", style),
        when_text(run.started),
        format_duration(seconds) if seconds is not None else "",
        _counted(record),
        best_text(record),
    ]


def _counted(record: RunRecord) -> str:
    """Return how many variants are done, and of how many where that is not all."""
    counts = count_variants(record)
    done, planned = counts["done"], counts["planned"]
    return str(planned) if done == planned else f"{done} of {planned}"


def count_variants(record: RunRecord) -> dict[str, int]:
    """Return how many variants there are, and how they stand."""
    variants = record.of()
    masked = sum(variant.status is Status.MASKED for variant in variants)
    total = sum(stage.total for stage in record.run.stages if stage.runs)
    return {
        "planned": max(total, len(variants)) - masked,
        "done": sum(variant.status.done for variant in variants),
        "running": sum(variant.status is Status.RUNNING for variant in variants),
        "failed": sum(variant.status is Status.FAILED for variant in variants),
        "skipped": masked,
        "reused": sum(variant.status is Status.REUSED for variant in variants),
    }


def best_text(record: RunRecord) -> str:
    """Return the best variant of a run: its figure, and which it is."""
    best = record.best()
    return f"{figure_text(best.metric)}  {variant_label(best)}" if best is not None else ""


def run_seconds(run: RunState) -> float | None:
    """Return how long a run took, or has taken until now."""
    if run.started is None:
        return None
    # The clock of another host may differ: for a run there, its own times count.
    now = steady_time() if run.host == socket.gethostname() else run.updated
    return max(0.0, (run.ended or now or run.started) - run.started)


def _entry(folder: RunFolder, record: RunRecord | None) -> dict[str, object]:
    """Return a run for programs."""
    entry: dict[str, object] = {"name": run_name(folder), "path": str(folder.root.absolute())}
    if record is None:
        return {**entry, "state": "unreadable"}
    run, best = record.run, record.best()
    return {
        **entry,
        "state": run.status.value,
        "error": run.error,
        "started": iso_time(run.started),
        "ended": iso_time(run.ended),
        "seconds": run_seconds(run),
        "host": run.host,
        "command": run.command,
        "version": run.version,
        "storage": run.storage,
        "stages": [stage.name for stage in run.stages if stage.runs],
        "variants": count_variants(record),
        "best": None
        if best is None
        else {
            "stage": best.stage,
            "id": best.id,
            "metric": best.metric,
            "choices": best.choices,
        },
    }
