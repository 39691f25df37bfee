"""A run as people see it: live on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flambe.cli import results_table
from flambe.cli.results_table import COLOURS, mark, near, title, took
from flambe.cli.terminal import console
from flambe.compile import Schema, registry
from flambe.errors import counted, listed
from flambe.logging import redact
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

LATEST = 8  # of how many variants the line that they write is shown
PLAIN_PERIOD = 10.0  # seconds between two lines of progress, where there is no terminal
MOST_LINES, LONGEST_LINE = 40, 4000  # of what a component says at once
MAX_STAGES = 1000  # how many stages the table of a plan shows


def display(*, verbose: bool = False, live: bool = True, remote: bool = False) -> Display:
    """Return what shows a run: live if the output is a terminal.

    Whoever shows a remote one says where its results are.
    """
    # The stream is taken now: what components print is taken from sys.stdout later on.
    shown = console(steady=True)
    live = live and shown.is_terminal and not shown.is_dumb_terminal
    made = LiveDisplay(shown, verbose) if live else Display(shown, verbose)
    made.remote = remote
    return made


class Display:
    """Shows a run in plain lines; an Observer of :mod:`flambe.experiment`."""

    def __init__(self, console: Console, verbose: bool = False) -> None:
        self.console = console
        self.verbose = verbose
        self.remote = False
        self.folder: RunFolder | None = None
        self.run: RunState | None = None
        self.variants: Mapping[str, VariantState] = {}
        self._stages: dict[str, Status] = {}
        self._said = 0.0
        self._working_said: dict[str, float] = {}
        self._lock = threading.RLock()

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """The run begins."""
        self.folder, self.run, self.variants = folder, run, variants
        self.say(f"{run.name}: results in {near(folder.root)}")

    def say(self, text: str | Text, **options: Any) -> None:
        """Print a line."""
        with self._lock:
            self.console.print(text, soft_wrap=True, **options)

    def note(self, text: str) -> None:
        """Say something about the run itself."""
        self.say(redact.hide(text), style="dim" if self.console.is_terminal else None)

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Print a line of a component."""
        text = _bounded(plain(redact.hide(text)))
        if variant is None:
            self.say(text)
        else:
            self.say(_line_of(variant, text, "red" if level in ("ERROR", "CRITICAL") else ""))

    def working(self, variant: VariantState | None, text: str) -> None:
        """Print now and then the line that a component writes and has not ended."""
        now, identity = time.monotonic(), variant.id if variant is not None else ""
        if variant and now - self._working_said.setdefault(identity, now) > PLAIN_PERIOD:
            self._working_said[identity] = now
            self.say(_line_of(variant, plain(redact.hide(text))))

    def changed(self) -> None:
        """Say what changed: stages at once, progress now and then."""
        if self.run is None:
            return
        with self._lock:
            for stage in self.run.stages:
                if stage.status is not self._stages.get(stage.name, Status.WAITING):
                    self._stages[stage.name] = stage.status
                    if stage.runs:
                        self.stage_changed(stage)
            self.progress()

    def stage_changed(self, stage: StageState) -> None:
        """Say where a stage stands."""
        self._said = time.monotonic()
        self.say(f"{stage.name}: {stage.status.value}, {self.counted(stage)}")

    def progress(self) -> None:
        """Say how far the stage is."""
        now = time.monotonic()
        if self.run is not None and now - self._said > PLAIN_PERIOD:
            self._said = now
            for stage in self.run.stages:
                if stage.status is Status.RUNNING:
                    self.say(f"{stage.name}: {self.counted(stage)}{self.best_so_far(stage)}")

    def of(self, stage: StageState) -> list[VariantState]:
        """Return the variants of a stage."""
        return [variant for variant in self._entries() if variant.stage == stage.name]

    def counted(self, stage: StageState) -> str:
        """Return ``3 of 12 variants done, 2 running``."""
        entries = self.of(stage)
        counts = {status: sum(e.status is status for e in entries) for status in Status}
        done = sum(count for status, count in counts.items() if status.done)
        planned = stage.total - counts[Status.MASKED]
        text = f"{done} of {planned} variants done"
        for status in (Status.RUNNING, Status.FAILED, Status.MASKED, Status.REUSED):
            word = "skipped" if status is Status.MASKED else status.value
            text += f", {counts[status]} {word}" if counts[status] else ""
        return text

    def best_so_far(self, stage: StageState) -> str:
        """Return the best variant of a stage up to now."""
        entries = [entry for entry in self.of(stage) if entry.status is not Status.FAILED]
        first = next(iter(ranked(entries, lambda entry: entry.best)), None)
        if first is None or not is_number(first.best):
            return ""
        return f", best {figure_text(first.best, 4)} ({title(first, stage=False)})"

    def ended(self) -> None:
        """Show the results, and where everything is."""
        self.close()
        if self.run is None or self.folder is None:
            return
        for table in results_table.tables(self.run, self._entries(), width=self.console.width):
            self.console.print(table)
        self._where()

    def _entries(self) -> list[VariantState]:
        return list(self.variants.values())

    def _where(self) -> None:
        assert self.run is not None
        assert self.folder is not None
        self.say(results_table.headline(self.run, self._entries()))
        if self.run.storage:
            self.say(f"  checkpoints  {self.run.storage}")
        if self.remote:
            return
        self.say(f"  results      {near(self.folder.root)}")
        self.say(f"  logs         {near(self.folder.log)}")
        # It is where this Python is, if not on the path.
        beside = Path(sys.executable).with_name("tensorboard")
        program = "tensorboard" if shutil.which("tensorboard") else near(beside)
        self.say(f"  TensorBoard  {program} --logdir {near(self.folder.root)}")
        self.say(f"  Report Site  flambe site {near(self.folder.root)}")
        best = results_table.best(self.run, self._entries())
        if best is not None:
            call = results_table.loading(
                self.folder, self.run, best, registry.extensions().declared
            )
            self.say(f"  the best     {call}")

    def close(self) -> None:
        """Leave the terminal as it was."""


class LiveDisplay(Display):
    """Shows a run on a terminal: its stages at the bottom, what components say above."""

    def __init__(self, console: Console, verbose: bool = False) -> None:
        super().__init__(console, verbose)
        self._live: Live | None = None
        # Id → the line that a component writes and has not ended, such as a progress bar.
        self._latest: dict[str, str] = {}

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """Print a line of a component."""
        if variant is not None:
            self._latest.pop(variant.id, None)
        super().line(variant, level, text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """Keep the line that a component writes: it is shown with the stages."""
        if variant is not None:
            self._latest[variant.id] = plain(redact.hide(text))

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Begin to show."""
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
        """The stages are shown anyway."""

    def progress(self) -> None:
        """The stages are shown anyway."""

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        assert self.run is not None
        for stage in self.run.stages:
            if not stage.runs:
                continue
            entries = self.of(stage)
            failed = sum(entry.status is Status.FAILED for entry in entries)
            sign, style = mark(stage.status, failed)
            done = sum(entry.status.done for entry in entries)
            masked = sum(entry.status is Status.MASKED for entry in entries)
            since = (stage.ended or steady_time()) - stage.started if stage.started else None
            table.add_row(
                Text(f"{sign} {stage.name}", style),
                ProgressBar(max(1, stage.total - masked), done, width=24),
                self.counted(stage),
                took(since) if since is not None else "",
                self.best_so_far(stage).removeprefix(", "),
            )
        return Group(Text(""), table, *self._working_lines())

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
    """Return a line of a component, with its stage and variant in front."""
    colour = COLOURS[int(variant.id[:6], 16) % len(COLOURS)]
    parts = ((title(variant), colour), (" | ", "dim"), (text, style))
    return Text.assemble(*parts, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else None)


def _bounded(text: str) -> str:
    """Return the text, its middle left out where it would fill screens: it is in the log."""
    lines = text.split("\n", MOST_LINES + 1)
    if len(lines) > MOST_LINES:
        lines = text.split("\n")
        left = f"... {len(lines) - MOST_LINES:,} lines more are in the log ..."
        lines = [*lines[: MOST_LINES // 2], left, *lines[-MOST_LINES // 2 :]]
    return "\n".join(map(_cut, lines))


def _cut(line: str) -> str:
    left = len(line) - LONGEST_LINE
    return line if left <= 0 else f"{line[:-left]} ... {left:,} characters more are in the log"


def print_plan(root: Schema) -> None:
    """Print what an experiment would run: its stages, and how many variants they have."""
    from flambe.experiment.plan import plan_stages
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
