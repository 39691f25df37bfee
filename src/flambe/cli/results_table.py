"""The results of a run in tables: what each variant reached, and why others did not."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flambe.logging.plain import plain
from flambe.progress import (
    RunFolder,
    RunState,
    StageState,
    Status,
    VariantState,
    figure_text,
    is_number,
    ranked,
    steady_time,
)

RANKED = 20  # how many variants a table shows of a stage
# What is about a host or a variant has one of these colours in front.
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan")
NARROW, WIDE = 80, 100  # columns from which on a table has all figures; and reasons, too
LONGEST_REASON = 160  # characters of a reason that a table shows

MARKS = {
    Status.WAITING: ("·", "dim"),
    Status.RUNNING: ("▶", "bold cyan"),
    Status.FINISHED: ("✔", "green"),
    Status.STOPPED: ("✔", "green"),
    Status.REUSED: ("↺", "green"),
    Status.FAILED: ("✘", "bold red"),
    Status.INTERRUPTED: ("■", "yellow"),
    Status.MASKED: ("-", "dim"),
}
PARTLY = ("✘", "yellow")  # finished, but for some variants
# What stands before a reason in the text of an error: its place, and what was done.
_PLACE = re.compile(r"^\S.*?:\d+:\d+: (?:\w+ )?!\S+: ")


def mark(status: Status, failed: int = 0) -> tuple[str, str]:
    """Return a sign and its style, of a run or a stage of whose variants some failed."""
    return PARTLY if failed and status is Status.FINISHED else MARKS[status]


def title(variant: VariantState, *, stage: bool = True) -> str:
    """Return what people call a variant: ``train lr=0.1,n=2``."""
    from flambe.experiment.variants.expansion import choices_text

    choices = plain(choices_text(variant.choices))
    return f"{variant.stage} {choices}".strip() if stage else choices or variant.stage


def reason(entry: VariantState) -> str:
    """Return on a line why a variant failed or was not run; nothing of others."""
    if entry.status is not Status.FAILED:
        return entry.reason if entry.status is Status.MASKED else ""
    text = _PLACE.sub("", plain(entry.error).strip().partition("\n")[0])
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def results_table(
    stage: StageState, entries: Sequence[VariantState], most: int = RANKED, width: int = WIDE
) -> Table:
    """Return the variants of a stage, the best first.

    Failed ones are shown, with their reasons if there is room, even if not all others are.
    """
    by_final = ranked(entries, lambda entry: entry.metric)
    failed = [entry for entry in by_final if entry.status is Status.FAILED]
    others = [entry for entry in by_final if entry.status is not Status.FAILED]
    shown = [*others[:most], *failed[:most]]
    names = list(dict.fromkeys(name for entry in shown for name in entry.choices))
    table = Table(title=stage.name, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("#", justify="right", style="dim")
    for name in names:
        numbers = all(_is_figure(entry.choices.get(name, 0)) for entry in shown)
        table.add_column(name, overflow="fold", justify="right" if numbers else "left")
    # Where there is little room, what a variant reached is not cut.
    reached = ("metric", "steps", "time", "state") if width >= NARROW else ("metric", "state")
    for name in reached:
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    if reasons := bool(failed) and width >= WIDE:
        table.add_column("reason", overflow="fold")
    for rank, entry in enumerate(shown, start=1):
        cells = _reached(entry)
        table.add_row(
            str(rank) if entry.status is not Status.FAILED else "",
            *(_cell(entry.choices[name]) if name in entry.choices else "" for name in names),
            *(cells[name] for name in reached),
            *([Text(reason(entry), "red")] if reasons else []),
            style="bold" if rank == 1 and is_number(entry.metric) else None,
        )
    if left := len(by_final) - len(shown):
        table.caption = f"and {left} more"
    return table


def tables(
    run: RunState,
    entries: Sequence[VariantState],
    stage: str = "",
    most: int = RANKED,
    width: int = WIDE,
) -> Iterator[RenderableType]:
    """Yield the tables of the stages of a run, or of one; reasons below where it is narrow."""
    for one in run.stages:
        if not one.runs or stage not in ("", one.name):
            continue
        own = [entry for entry in entries if entry.stage == one.name]
        began = [entry for entry in own if entry.attempts or entry.status.done]
        if began:
            yield results_table(one, began, most, width)
        elif own and one.status is Status.MASKED:
            yield Text(f"{one.name} is skipped: {reason(own[0])}", "dim")
        failed = [entry for entry in began if entry.status is Status.FAILED]
        if width < WIDE:
            for entry in failed[:most]:
                yield Text(f"{title(entry)}: {reason(entry)}", "red")


def headline(run: RunState, entries: Sequence[VariantState]) -> Text:
    """Return how a run ended, or stands, and how long it took."""
    sign, style = mark(run.status, run.failed)
    text = f"{sign} {run.name} {run.outcome}"
    reused = sum(entry.status is Status.REUSED for entry in entries)
    if run.status is Status.FINISHED and reused and not any(entry.attempts for entry in entries):
        what = "its result is" if reused == 1 else f"the results of its {reused} variants are"
        return Text(f"{text}: there was nothing to run, {what} from an earlier run", style)
    if run.started:
        time_to = "in" if run.ended else "for"
        # Another host has another clock: its own time counts there.
        now = steady_time() if run.host == socket.gethostname() else run.updated or run.started
        text += f" {time_to} {took((run.ended or now) - run.started)}"
    return Text(text, style)


def best(run: RunState, entries: Sequence[VariantState], stage: str = "") -> VariantState | None:
    """Return the best variant: of a stage, or of the last one that has a figure."""
    for one in reversed(run.stages):
        done = [e for e in entries if e.stage == one.name and e.status.done]
        measured = [entry for entry in done if is_number(entry.metric)]
        if one.runs and measured and stage in ("", one.name):
            # Ranked by what is loaded: its figure is the last one, not the best on the way.
            return ranked(measured, lambda entry: entry.metric)[0]
    return None


def loading(
    folder: RunFolder, run: RunState, variant: VariantState, extensions: Collection[str]
) -> str:
    """Return the Python that loads what a variant ended with."""
    path = folder.checkpoint(variant.stage, variant.name).relative_to(folder.root)
    root = run.storage or str(near(folder.root))
    declared = f", extensions={sorted(extensions)}" if extensions else ""
    return f"flambe.load('{root}/{path}'{declared})"


def near(path: Path) -> Path:
    """Return a path as people type it here: relative, where it is below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _reached(entry: VariantState) -> dict[str, str | Text]:
    sign, style = MARKS[entry.status]
    kept = ", kept" if entry.kept else ""
    kept += ", stale" if entry.stale else ""
    seconds = (entry.ended - entry.started) if entry.ended and entry.started else None
    return {
        "metric": figure_text(entry.metric),
        "steps": str(entry.step),
        "time": took(seconds) if seconds is not None else "",
        "state": Text(f"{sign} {entry.status.value}{kept}", style),
    }


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def took(seconds: float) -> str:
    """Return a duration as people read it: ``12 s``, ``3 min 04 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
