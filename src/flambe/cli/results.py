"""``flambe results``, and the tables of results that every display of a run ends with."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flambe._disk import amount
from flambe.cli.terminal import console
from flambe.errors import ConfigError, FlambeError, Problem, did_you_mean, listed
from flambe.experiment.observer import short_path, variant_label
from flambe.logging.plain import plain
from flambe.progress import (
    RunFolder,
    RunRecord,
    RunState,
    SeedGroup,
    StageState,
    Status,
    VariantState,
    figure_text,
    format_duration,
    group_seeds,
    interrupt,
    is_alive,
    is_number,
    ranked,
    ranked_groups,
    run_folders,
    steady_time,
)
from flambe.progress.text import SIGNS

RANKED = 20  # how many variants of a stage a table shows
# The colours of the names that stand in front of lines of output.
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan")
NARROW, WIDE = 80, 100  # columns from which a table has all figures; and from which also reasons
NOT_KEPT = " was not kept by reduce"  # the end of a reason that needs no mention
LONGEST_REASON = 160  # characters of a reason that a table shows

_STYLES = {
    Status.WAITING: "dim",
    Status.RUNNING: "bold cyan",
    Status.FINISHED: "green",
    Status.STOPPED: "green",
    Status.REUSED: "green",
    Status.FAILED: "bold red",
    Status.INTERRUPTED: "yellow",
    Status.MASKED: "dim",
}
MARKS = {status: (SIGNS[status], style) for status, style in _STYLES.items()}
PARTLY_FAILED = ("✘", "yellow")  # finished, but some variants failed
# The start of an error message that a table leaves out: its position, and what was being done.
_POSITION = re.compile(r"^\S.*?:\d+:\d+: (?:\w+ )?!\S+: ")


# -- flambe results ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ResultsOptions:
    """The options of ``flambe results``."""

    folder: str
    stage: str | None = None
    all: bool = False


def show_results(options: ResultsOptions) -> int:
    """Show the results of a run, or of one of its stages, and the best variant."""
    folder = find_run(Path(options.folder), "results")
    record = RunRecord.read(folder)
    if record is None:
        raise ConfigError(Problem(f"the state of the run in {folder.root} cannot be read"))
    run, variants = record.run, list(record.variants.values())
    names = [stage.name for stage in run.stages if stage.runs]
    if options.stage and options.stage not in names:
        hint = did_you_mean(options.stage, names) or f"the stages: {listed(names)}"
        raise ConfigError(Problem(f"no stage {options.stage!r} of this run has results", hint=hint))
    screen = console()
    limit = len(variants) if options.all else RANKED
    stage_name = options.stage or ""
    for table in result_tables(run, variants, stage_name, limit, screen.width, each=options.all):
        screen.print(table)
    screen.print(summary_line(run, variants), soft_wrap=True)
    if run.status in (Status.INTERRUPTED, Status.FAILED):
        screen.print("  to continue, run the same command with --resume", style="dim")
    best = record.best(options.stage or "")
    if best is None:
        screen.print("  no variant has a metric yet", style="dim")
        return 0
    screen.print(
        f"  the best     {variant_label(best)}: {figure_text(best.metric)}", soft_wrap=True
    )
    call = load_call(folder, run, best, _declared_extensions(folder))
    screen.print(f"               {call}", soft_wrap=True)
    return 0


def find_run(path: Path, command: str = "site") -> RunFolder:
    """Return the run in a folder: the folder itself, or the only run in it.

    Raises
    ------
    ConfigError
        If there is none, or there are several.
    """
    if not path.is_dir():
        hint = "give the output folder of a run"
        raise ConfigError(Problem(f"no such folder: {path}", hint=hint))
    folder = RunFolder(path)
    if folder.state.exists() or folder.previous_state.exists() or path.name.startswith("output__"):
        return folder
    runs = run_folders(path)
    if not runs:
        hint = (
            "a run writes to <save_path>/output__<name>; the default is "
            "./flambe-output/output__<name>"
        )
        raise ConfigError(Problem(f"no run in {path}", hint=hint))
    if len(runs) > 1:
        lines = "\n".join(f"  flambe {command} {run.root}   {_outcome(run)}" for run in runs)
        raise ConfigError(f"{path} holds {len(runs)} runs, the latest first; choose one:\n{lines}")
    return runs[0]


def _outcome(folder: RunFolder) -> str:
    """Return how a run ended or proceeds, and when."""
    state = folder.read_state()
    if state is None:
        return "its state cannot be read"
    if not is_alive(state):
        interrupt(state)
    when = state.ended or state.updated or 0.0
    return f"{state.outcome}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(when))}"


def _declared_extensions(folder: RunFolder) -> list[str]:
    """Return the extensions that the configuration of a run declares."""
    from flambe.compile.reader.document import header

    try:
        return sorted(header(folder.config))
    except FlambeError:  # the run was made in Python, or the file was removed
        return []


# -- tables ------------------------------------------------------------------------------------


def status_mark(status: Status, failed: int = 0) -> tuple[str, str]:
    """Return a sign and its style, for a run or stage with a number of failed variants."""
    return PARTLY_FAILED if failed and status is Status.FINISHED else MARKS[status]


def failure_reason(variant: VariantState) -> str:
    """Return, on one line, why a variant failed or was skipped; empty for all others."""
    if variant.status is not Status.FAILED:
        return variant.reason if variant.status is Status.MASKED else ""
    return _shortened(_POSITION.sub("", plain(variant.error).strip().partition("\n")[0]))


def stage_table(
    stage: StageState, variants: Sequence[VariantState], limit: int = RANKED, width: int = WIDE
) -> Table:
    """Return the variants of a stage, the best first.

    Failed ones are always in the table, with their reasons if it is wide enough.
    """
    by_metric = ranked(variants, lambda variant: variant.metric)
    failed = [variant for variant in by_metric if variant.status is Status.FAILED]
    others = [variant for variant in by_metric if variant.status is not Status.FAILED]
    rows = [*others[:limit], *failed[:limit]]
    names = list(dict.fromkeys(name for variant in rows for name in variant.choices))
    table = Table(title=stage.name, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("#", justify="right", style="dim")
    for name in names:
        numbers = all(_is_numeric(variant.choices.get(name, 0)) for variant in rows)
        table.add_column(name, overflow="fold", justify="right" if numbers else "left")
    # In a narrow table, these columns are never cut.
    columns = ("metric", "steps", "time", "state") if width >= NARROW else ("metric", "state")
    for name in columns:
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    if copies := any(variant.history for variant in rows) and width >= NARROW:
        table.add_column("copied", overflow="fold")
        numbers_by_id = {variant.id: f"#{rank}" for rank, variant in enumerate(rows, start=1)}
    if reasons := bool(failed) and width >= WIDE:
        table.add_column("reason", overflow="fold")
    for rank, variant in enumerate(rows, start=1):
        cells = _progress_cells(variant)
        choices = variant.choices
        table.add_row(
            str(rank) if variant.status is not Status.FAILED else "",
            *(_choice_cell(choices[name]) if name in choices else "" for name in names),
            *(cells[name] for name in columns),
            *([_copied_text(variant, numbers_by_id)] if copies else []),
            *([Text(failure_reason(variant), "red")] if reasons else []),
            style="bold" if rank == 1 and is_number(variant.metric) else None,
        )
    if omitted := len(by_metric) - len(rows):
        table.caption = f"and {omitted} more"
    return table


def seed_table(
    stage: StageState, variants: Sequence[VariantState], limit: int = RANKED, width: int = WIDE
) -> Table:
    """Return the configurations of a stage with the means over their seeds, the best first."""
    groups = ranked_groups(group_seeds(variants))
    rows = groups[:limit]
    names = [name for name in _choice_names(variants) if not _differs(groups, name)]
    table = Table(title=stage.name, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("#", justify="right", style="dim")
    for name in names:
        numbers = all(_is_numeric(variant.choices.get(name, 0)) for variant in variants)
        table.add_column(name, overflow="fold", justify="right" if numbers else "left")
    for name in ("metric", "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state")
    for rank, group in enumerate(rows, start=1):
        choices = group.variants[0].choices
        table.add_row(
            str(rank),
            *(_choice_cell(choices[name]) if name in choices else "" for name in names),
            group.text(),
            group.count_text(),
            _states_cell(group.variants),
            style="bold" if rank == 1 and group.numbers else None,
        )
    if omitted := len(groups) - len(rows):
        table.caption = f"and {omitted} more"
    return table


def _choice_names(variants: Sequence[VariantState]) -> list[str]:
    return list(dict.fromkeys(name for variant in variants for name in variant.choices))


def _differs(groups: Sequence[SeedGroup], name: str) -> bool:
    """Whether a hyper-parameter is the seed: it differs inside of groups."""
    return any(len({str(v.choices.get(name)) for v in group.variants}) > 1 for group in groups)


def _states_cell(variants: Sequence[VariantState]) -> Text:
    """Return the states of the variants of one configuration: one, or how many are in each."""
    counts = Counter(variant.status for variant in variants)
    kept = ", kept" if any(variant.kept for variant in variants) else ""
    if len(counts) == 1:
        status = variants[0].status
        return Text(f"{MARKS[status][0]} {status.value}{kept}", MARKS[status][1])
    parts = [Text(f"{count} {status.value}", MARKS[status][1]) for status, count in counts.items()]
    return Text(", ").join(parts).append(kept)


def result_tables(
    run: RunState,
    variants: Sequence[VariantState],
    stage_name: str = "",
    limit: int = RANKED,
    width: int = WIDE,
    *,
    each: bool = False,
) -> Iterator[RenderableType]:
    """Yield the tables of the stages of a run, or of one; narrow ones with reasons below them.

    Variants that were run under several seeds are shown by their means, unless ``each`` is to be.
    """
    for stage in run.stages:
        if not stage.runs or stage_name not in ("", stage.name):
            continue
        own = [variant for variant in variants if variant.stage == stage.name]
        started = [variant for variant in own if variant.attempts or variant.status.done]
        is_grouped = not each and any(variant.group for variant in started)
        if started:
            table = seed_table if is_grouped else stage_table
            yield table(stage, started, limit, width)
        elif own and stage.status is Status.MASKED:
            yield Text(f"{stage.name} is skipped: {failure_reason(own[0])}", "dim")
        if started or stage.status is not Status.MASKED:
            for reason, count in _reasons_not_run(run, own).most_common(limit):
                variants_were = "1 variant was" if count == 1 else f"{count} variants were"
                yield Text(f"{stage.name}: {variants_were} not run: {reason}", "dim")
        failed = [variant for variant in started if variant.status is Status.FAILED]
        if width < WIDE or is_grouped:
            for variant in failed[:limit]:
                yield Text(f"{variant_label(variant)}: {failure_reason(variant)}", "red")


def _reasons_not_run(run: RunState, variants: Sequence[VariantState]) -> Counter[str]:
    """Return why variants were not run, though ``reduce`` had kept what they need: how many each.

    Those of a run that continues may still run.
    """
    never = {Status.MASKED}
    if run.status in (Status.FAILED, Status.FINISHED):
        never.add(Status.WAITING)
    reasons = (variant.reason for variant in variants if variant.status in never)
    return Counter(reason for reason in reasons if reason and not reason.endswith(NOT_KEPT))


def summary_line(run: RunState, variants: Sequence[VariantState]) -> Text:
    """Return how a run ended, or proceeds, and how long it took."""
    sign, style = status_mark(run.status, run.failed)
    text = f"{sign} {run.name} {run.outcome}"
    reused = sum(variant.status is Status.REUSED for variant in variants)
    attempted = any(variant.attempts for variant in variants)
    if run.status is Status.FINISHED and reused and not attempted:
        subject = "its result is" if reused == 1 else f"the results of its {reused} variants are"
        return Text(f"{text}: there was nothing to run, {subject} from an earlier run", style)
    if run.started:
        preposition = "in" if run.ended else "for"
        # The clock of another host may differ: for a run there, its own times count.
        now = steady_time() if run.host == socket.gethostname() else run.updated or run.started
        text += f" {preposition} {format_duration((run.ended or now) - run.started)}"
    return Text(text, style)


def stored_text(run: RunState) -> str:
    """Return how much room the checkpoints of a run take, by stage; nothing if they take none."""
    stages = [s for s in run.stages if s.stored_bytes]
    total = amount(run.stored_bytes)
    if len(stages) <= 1:
        return total if stages else ""
    largest = sorted(stages, key=lambda stage: -stage.stored_bytes)
    return f"{total}: {listed([f'{s.name} {amount(s.stored_bytes)}' for s in largest], 4)}"


def load_call(
    folder: RunFolder, run: RunState, variant: VariantState, extensions: Collection[str]
) -> str:
    """Return the Python call that loads the final state of a variant."""
    path = folder.checkpoint(variant.stage, variant.name).relative_to(folder.root)
    root = run.storage or str(short_path(folder.root))
    argument = f", extensions={sorted(extensions)}" if extensions else ""
    return f"flambe.load('{root}/{path}'{argument})"


def _progress_cells(variant: VariantState) -> dict[str, str | Text]:
    sign, style = MARKS[variant.status]
    suffix = ", kept" if variant.kept else ""
    suffix += ", stale" if variant.stale else ""
    suffix += f": {variant.stopped_by}" if variant.stopped_by else ""
    is_over = variant.ended and variant.started
    return {
        "metric": figure_text(variant.metric),
        "steps": str(variant.step),
        "time": format_duration((variant.ended or 0) - (variant.started or 0)) if is_over else "",
        "state": Text(f"{sign} {variant.status.value}{suffix}", style),
    }


def _copied_text(variant: VariantState, numbers: Mapping[str, str]) -> str:
    """Return whose state a member of a population took last, and how often it took one."""
    if not variant.history:
        return ""
    last, count = variant.history[-1], len(variant.history)
    source = str(last.get("source", ""))
    times = f" ({count} times)" if count > 1 else ""
    return f"{numbers.get(source, source[:8])} at step {last.get('step')}{times}"


def _is_numeric(choice: object) -> bool:
    return isinstance(choice, int | float) and not isinstance(choice, bool)


def _choice_cell(choice: object) -> str:
    return _shortened(f"{choice:.6g}" if isinstance(choice, float) else str(choice))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"
