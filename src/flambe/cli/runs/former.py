"""``flambe ls --stale``: results that are kept in the folders of runs, and are no part of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from flambe.cli.runs.selection import (
    iso_time,
    plain_table,
    print_json,
    print_table,
    run_name,
    when_text,
    wide_console,
)
from flambe.progress import RunFolder, choices_text, figure_text

if TYPE_CHECKING:  # imported when results are looked for
    from flambe.experiment.variants.lineage import FormerResult


def list_former(folders: Sequence[RunFolder], *, as_json: bool) -> int:
    """List the results in runs that belong to them no more, and why."""
    from flambe.experiment.variants.lineage import former_results

    results = [(folder, result) for folder in folders for result in former_results(folder)]
    if as_json:
        print_json([_entry(folder, result) for folder, result in results])
        return 0
    screen = wide_console()
    if not results:
        screen.print("all results belong to their runs", style="dim")
        return 0
    table = plain_table()
    for name in ("run", "stage", "variant", "metric", "when", "reason"):
        table.add_column(name, overflow="fold", justify="right" if name == "metric" else "left")
    for folder, result in results:
        entry = result.entry
        table.add_row(
            run_name(folder),
            entry.stage,
            choices_text(entry.choices),
            figure_text(entry.metric),
            Text(when_text(entry.ended or entry.started), "dim"),
            Text(result.reason, "yellow"),
        )
    print_table(screen, table)
    screen.print("  --resume uses them again where they belong to the configuration", style="dim")
    return 0


def _entry(folder: RunFolder, result: FormerResult) -> dict[str, object]:
    entry = result.entry
    return {
        "run": run_name(folder),
        "stage": entry.stage,
        "id": entry.id,
        "choices": entry.choices,
        "state": entry.status.value,
        "metric": entry.metric,
        "ended": iso_time(entry.ended),
        "reason": result.reason,
        "path": str(folder.variant(entry.stage, entry.name).absolute()),
    }
