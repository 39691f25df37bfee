"""The display of a run: live on a terminal, plain lines elsewhere, tables at the end."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flambe.cli import results
from flambe.cli.results import COLOURS, status_mark
from flambe.cli.terminal import console
from flambe.compile import Schema, registry
from flambe.errors import counted, listed
from flambe.experiment.observer import TextObserver, short_path, variant_label
from flambe.logging import redact
from flambe.logging.plain import plain
from flambe.progress import (
    RunFolder,
    RunState,
    StageState,
    Status,
    VariantState,
    best_variant,
    format_duration,
    steady_time,
)

if TYPE_CHECKING:  # imported when a plan is made
    from flambe.experiment.planning.plan import Plan, StagePlan


LATEST = 8  # how many variants have their unfinished line shown
COUNTING_SHARE = 0.05  # of the time that the display may take to count variants
MOST_LINES, LONGEST_LINE = 40, 4000  # of one message of a component
MAX_STAGES = 1000  # how many stages the table of a plan shows
MOST_REASONS = 5  # of a stage in a plan
ACTIONS = {"reuse": "reused", "continue": "continue", "run": "run", "skip": "skipped"}


def display(*, verbose: bool = False, live: bool = True, remote: bool = False) -> Display:
    """Return the display of a run: live if the output is a terminal.

    Where ``remote`` is set, the client that follows the run prints where its results are.
    """
    # The console keeps the present sys.stdout: later it captures what components print.
    screen = console(steady=True)
    live = live and screen.is_terminal and not screen.is_dumb_terminal
    run_display = LiveDisplay(screen, verbose) if live else Display(screen, verbose)
    run_display.remote = remote
    return run_display


class Display(TextObserver):
    """Shows a run in plain lines; an Observer of :mod:`flambe.experiment`."""

    def __init__(self, console: Console, verbose: bool = False) -> None:
        super().__init__()
        self.console = console
        self.verbose = verbose
        self.remote = False

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print a line."""
        with self._lock:
            self.console.print(text, soft_wrap=True, style=style)

    def note(self, text: str) -> None:
        """Print a message about the run itself."""
        self.say(redact.hide(text), style="dim" if self.console.is_terminal else None)

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Print a line of a component."""
        style = "red" if variant and level in ("ERROR", "CRITICAL") else ""
        self.component_line(variant, _bounded(plain(redact.hide(text))), style)

    def component_line(self, variant: VariantState | None, text: str, style: str = "") -> None:
        """Print text of a component, with the name of the variant in front."""
        self.say(_line_of(variant, text, style) if variant is not None else text)

    def ended(self) -> None:
        """Show the results, and where they are."""
        self.close()
        if self.run is None or self.folder is None:
            return
        entries = list(self.variants.values())
        for table in results.result_tables(self.run, entries, width=self.console.width):
            self.console.print(table)
        self._print_locations(self.folder, self.run, entries)

    def _print_locations(
        self, folder: RunFolder, run: RunState, entries: list[VariantState]
    ) -> None:
        self.say(results.summary_line(run, entries))
        stored = results.stored_text(run)
        if run.storage or stored:
            where = f"{run.storage} ({stored})" if run.storage and stored else run.storage or stored
            self.say(f"  checkpoints  {where}")
        if self.remote:
            return
        self.say(f"  results      {short_path(folder.root)}")
        self.say(f"  logs         {short_path(folder.log)}")
        # If it is not on the PATH, it is installed beside this Python.
        beside = Path(sys.executable).with_name("tensorboard")
        program = "tensorboard" if shutil.which("tensorboard") else short_path(beside)
        self.say(f"  TensorBoard  {program} --logdir {short_path(folder.root)}")
        self.say(f"  Report Site  flambe site {short_path(folder.root)}")
        best = best_variant(run, entries)
        if best is not None:
            call = results.load_call(folder, run, best, registry.extensions().declared)
            self.say(f"  the best     {call}")

    def close(self) -> None:
        """Leave the terminal as it was."""


class LiveDisplay(Display):
    """Shows a run on a terminal: its stages at the bottom, the output of components above."""

    def __init__(self, console: Console, verbose: bool = False) -> None:
        super().__init__(console, verbose)
        self._live: Live | None = None
        # Variant id → the unfinished line of its component, such as a progress bar.
        self._latest: dict[str, str] = {}
        self._summary: Table | None = None
        #: When the stages were counted last, and how long that took, in seconds.
        self._counted, self._cost = 0.0, 0.0

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Print a line of a component."""
        if variant is not None:
            self._latest.pop(variant.id, None)
        super().line(variant, level, text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """Keep the unfinished line of a component; it is shown with the stages."""
        if variant is not None:
            self._latest[variant.id] = plain(redact.hide(text))

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Start the live display."""
        super().begun(folder, run, variants)
        self._live = Live(
            get_renderable=self._render,
            console=self.console,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=True,
        )
        self._live.start()

    def stage_changed(self, stage: StageState) -> None:
        """Print nothing: the live display shows the stages."""

    def progress(self) -> None:
        """Print nothing: the live display shows the stages."""

    def _render(self) -> RenderableType:
        """Return what is shown; with very many variants, they are not counted each time."""
        begun = time.monotonic()
        if self._summary is None or begun - self._counted >= self._cost / COUNTING_SHARE:
            self._summary = self._count_stages()
            self._counted = time.monotonic()
            self._cost = self._counted - begun
        return Group(Text(""), self._summary, *self._working_lines())

    def _count_stages(self) -> Table:
        table = Table.grid(padding=(0, 2))
        assert self.run is not None
        for stage in self.run.stages:
            if not stage.runs:
                continue
            entries = self.variants_of(stage)
            failed = sum(entry.status is Status.FAILED for entry in entries)
            sign, style = status_mark(stage.status, failed)
            done = sum(entry.status.done for entry in entries)
            masked = sum(entry.status is Status.MASKED for entry in entries)
            end = stage.ended or steady_time()
            elapsed = end - stage.started if stage.started else None
            table.add_row(
                Text(f"{sign} {stage.name}", style),
                ProgressBar(max(1, stage.total - masked), done, width=24),
                self.counted(stage),
                format_duration(elapsed) if elapsed is not None else "",
                self.best_so_far(stage).removeprefix(", "),
            )
        return table

    def _working_lines(self) -> Iterator[Text]:
        for identity, text in list(self._latest.items())[-LATEST:]:
            variant = self.variants.get(identity)
            if variant is not None and variant.status is Status.RUNNING:
                yield _line_of(variant, text, no_wrap=True)
            else:
                self._latest.pop(identity, None)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _line_of(variant: VariantState, text: str, style: str = "", *, no_wrap: bool = False) -> Text:
    """Return a line of a component with its stage and variant in front."""
    colour = COLOURS[int(variant.id[:6], 16) % len(COLOURS)]
    parts = ((variant_label(variant), colour), (" | ", "dim"), (text, style))
    return Text.assemble(*parts, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else None)


def _bounded(text: str) -> str:
    """Return the text, without its middle where it is very long: the log has all of it."""
    lines = text.split("\n", MOST_LINES + 1)
    if len(lines) > MOST_LINES:
        lines = text.split("\n")
        omission = f"... {len(lines) - MOST_LINES:,} more lines are in the log ..."
        lines = [*lines[: MOST_LINES // 2], omission, *lines[-MOST_LINES // 2 :]]
    return "\n".join(map(_cut, lines))


def _cut(line: str) -> str:
    excess = len(line) - LONGEST_LINE
    if excess <= 0:
        return line
    return f"{line[:-excess]} ... {excess:,} more characters are in the log"


def print_plan(root: Schema) -> None:
    """Print what an experiment would run: its stages, and how many variants they have."""
    from flambe.experiment.planning.plan import plan_stages
    from flambe.experiment.spec import ExperimentSpec

    table = Table(header_style="bold")
    for name in ("stage", "component", "links to", "variants"):
        table.add_column(name, justify="right" if name == "variants" else "left")
    rows = plan_stages(ExperimentSpec.from_keywords(root.kwargs))
    for row in rows[:MAX_STAGES]:
        table.add_row(row.stage, row.component, listed(row.links), row.variants)
    console().print(table)
    if len(rows) > MAX_STAGES:
        console().print(f"and {counted(len(rows) - MAX_STAGES, 'more stage')}")


def print_stages(screen: Console, plan: Plan) -> None:
    """Print what becomes of the variants of each stage, and why."""
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("stage", "component", "links to", "variants"):
        table.add_column(name)
    for name in ("reused", "run", "waves"):
        table.add_column(name, justify="right")
    for row in plan.stages[:MAX_STAGES]:
        stage, counts = row.stage, ["", "", ""]
        if stage.runs:
            most = "" if row.decided.is_certain else "≤ "
            numbers = (row.reused, row.run, row.waves)
            counts = [f"{most}{number}" if number else str(number) for number in numbers]
        table.add_row(stage.stage, stage.component, listed(stage.links), stage.product, *counts)
    screen.print(table)
    if len(plan.stages) > MAX_STAGES:
        screen.print(f"and {counted(len(plan.stages) - MAX_STAGES, 'more stage')}")
    for row in plan.stages[:MAX_STAGES]:
        for line in _reasons(row):
            screen.print(f"  {row.stage.stage}: {line}", soft_wrap=True, highlight=False)


def _reasons(row: StagePlan) -> Iterator[str]:
    """Yield what becomes of the variants of a stage and why, the most frequent first."""
    if not row.decided.is_certain:
        yield "which variants there are is decided by reduce, when what it depends on has run"
        return
    merged: Counter[tuple[str, str]] = Counter()
    for (action, reason), count in row.decided.reasons().items():
        # Each names the variant that was not kept, which would hide all other reasons.
        not_kept = reason.endswith(results.NOT_KEPT)
        text = "reduce does not keep what they build on" if not_kept else reason
        merged[ACTIONS[action.value], text] += count
    reasons = [(key, n) for key, n in merged.most_common() if key[1]]
    for (becomes, reason), count in reasons[:MOST_REASONS]:
        yield f"{count} {becomes}: {reason}"
    if len(reasons) > MOST_REASONS:
        yield f"and {counted(len(reasons) - MOST_REASONS, 'more reason')}: --json lists all"
    if row.decided.to_suggest and row.reused:
        yield f"{row.decided.to_suggest} more are suggested"
