"""``flambe compare``: what differs between runs, in configuration, code, packages and figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from flambe.cli.results import status_mark
from flambe.cli.runs.configuration import flat_values
from flambe.cli.runs.listing import count_variants, run_seconds
from flambe.cli.runs.selection import (
    plain_table,
    print_json,
    print_table,
    run_name,
    select_run,
    when_text,
    wide_console,
)
from flambe.cli.terminal import TextConsole
from flambe.errors import ConfigError, Problem
from flambe.logging.plain import plain
from flambe.progress import (
    Invocation,
    Repository,
    RunRecord,
    choices_text,
    figure_text,
    format_duration,
    open_regular,
    ranked,
    read_invocations,
)

SHOWN = 30  # rows of a section
LONGEST = 60  # characters of a value in a table on a terminal
LARGEST_CONFIG = 2 << 20  # bytes
_DIFF_FILE = re.compile(r"^diff --git a/.+? b/(.+)$", re.MULTILINE)

#: Path or name → the value in each run; None where a run has none.
Differences = dict[str, list[str | None]]


@dataclass(frozen=True)
class CompareOptions:
    """The options of ``flambe compare``."""

    run: str
    others: Sequence[str] = ()
    all: bool = False
    json: bool = False


@dataclass
class ComparedRun:
    """A run, and what is compared of it.

    Attributes
    ----------
    record
        The run.
    start
        How it was made: by the latest start that recorded it; None for a run of an earlier version.
    name
        What it is called in tables.
    """

    record: RunRecord
    start: Invocation | None
    name: str
    configuration: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, record: RunRecord) -> ComparedRun:
        """Read what is compared of a run."""
        starts = read_invocations(record.folder.invocations)
        start = starts[-1] if starts else None
        return cls(
            record,
            start,
            run_name(record.folder),
            flat_values(configuration_text(record, start)),
        )


def configuration_text(record: RunRecord, start: Invocation | None) -> str:
    """Return the configuration of a run: as it was resolved, else as it was written."""
    if start is not None and (start.resolved or start.config):
        return start.resolved or start.config
    try:
        with open_regular(record.folder.config) as stream:
            return stream.read(LARGEST_CONFIG).decode("utf-8", "replace")
    except OSError:
        return ""


def compare(options: CompareOptions) -> int:
    """Show what differs between runs."""
    texts = [options.run, *options.others]
    if len(texts) < 2:
        hint = f"flambe compare {options.run} OTHER"
        raise ConfigError(Problem("compare needs at least two runs", hint=hint))
    runs = [ComparedRun.read(select_run(text, "compare")) for text in texts]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        for run in runs:
            run.name = str(run.record.folder.root)
    sections = {
        "configuration": differences([run.configuration for run in runs]),
        "code": differences([_code(run.start) for run in runs]),
        "packages": differences([run.start.packages if run.start else {} for run in runs]),
    }
    figures = _figures(runs)
    if options.json:
        print_json(_document(runs, sections, figures))
    else:
        _print(runs, sections, figures, show_all=options.all)
    return 0


def differences(values: Sequence[Mapping[str, str]]) -> Differences:
    """Return what is not the same in all mappings: in the order of the first that has it."""
    names = dict.fromkeys(name for mapping in values for name in mapping)
    rows = {name: [mapping.get(name) for mapping in values] for name in names}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def _code(start: Invocation | None) -> dict[str, str]:
    """Return the versions of code that a run was made with, by what it is."""
    if start is None:
        return {}
    code = {
        "flambe": start.flambe,
        "python": start.python,
        "platform": start.platform,
        "cpus": str(start.cpus),
        "gpus": ", ".join(start.gpus) or "none",
        "seeds": ", ".join(map(str, start.seeds)),
    }
    for repository in start.repositories:
        name = Path(repository.folder).name
        code[name] = _commit(repository)
        for file, part in changed_files(repository).items():
            code[f"{name}/{file}"] = part
    return code


def _commit(repository: Repository) -> str:
    if repository.problem:
        return f"unknown: {repository.problem}"
    branch = f" ({repository.branch})" if repository.branch else ""
    return f"{repository.commit[:12] or 'no commit'}{branch}"


def changed_files(repository: Repository) -> dict[str, str]:
    """Return the files that differ from the commit, and how, in a few characters."""
    starts = [match.start() for match in _DIFF_FILE.finditer(repository.diff)]
    files = {}
    for start, end in zip(starts, [*starts[1:], len(repository.diff)], strict=False):
        part = repository.diff[start:end]
        lines = part.splitlines()
        added = sum(line.startswith("+") and not line.startswith("+++ ") for line in lines)
        removed = sum(line.startswith("-") and not line.startswith("--- ") for line in lines)
        match = _DIFF_FILE.match(part)
        assert match is not None
        # The same numbers of lines may be other lines.
        files[match[1]] = f"+{added} -{removed} ({hash_text(part)})"
    return files


def hash_text(text: str) -> str:
    """Return a short hash of a text."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:6]


@dataclass(frozen=True)
class FigureRow:
    """Variants of several runs with the same hyper-parameters, in stages of the same name."""

    stage: str
    choices: Mapping[str, object]
    metrics: Sequence[float | None]


def _figures(runs: Sequence[ComparedRun]) -> list[FigureRow]:
    """Return the figures of the variants side by side: stage by stage, the best first."""
    table: dict[tuple[str, str], list[float | None]] = {}
    choices: dict[tuple[str, str], Mapping[str, object]] = {}
    for number, run in enumerate(runs):
        for row in run.record.rows():
            variant = row.variant
            if not (variant.status.done or variant.attempts):
                continue
            key = (variant.stage, choices_text(variant.choices))
            choices.setdefault(key, variant.choices)
            figures = table.setdefault(key, [None] * len(runs))
            if figures[number] is None:  # of a repetition, the best
                figures[number] = variant.metric
    stages = list(dict.fromkeys(stage for stage, _ in table))
    rows = [FigureRow(key[0], choices[key], figures) for key, figures in table.items()]
    return [
        row
        for stage in stages
        for row in ranked([r for r in rows if r.stage == stage], lambda r: _best(r.metrics))
    ]


def _best(metrics: Iterable[float | None]) -> float | None:
    return next(iter(ranked(metrics, lambda metric: metric)), None)


# -- output -----------------------------------------------------------------------------------


def _document(
    runs: Sequence[ComparedRun], sections: Mapping[str, Differences], figures: Sequence[FigureRow]
) -> dict[str, object]:
    return {
        "runs": [
            {
                "name": run.name,
                "path": str(run.record.folder.root.absolute()),
                "state": run.record.run.status.value,
                "recorded": run.start is not None,
            }
            for run in runs
        ],
        **sections,
        "figures": [
            {"stage": row.stage, "choices": dict(row.choices), "metrics": _named(runs, row.metrics)}
            for row in figures
        ],
    }


def _named(runs: Sequence[ComparedRun], values: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip((run.name for run in runs), values, strict=True))


def _print(
    runs: Sequence[ComparedRun],
    sections: Mapping[str, Differences],
    figures: Sequence[FigureRow],
    *,
    show_all: bool,
) -> None:
    screen = wide_console()
    _print_runs(screen, runs)
    for title, rows in sections.items():
        screen.print()
        if not rows:
            screen.print(Text.assemble((title, "bold"), ("  no difference", "dim")))
            continue
        limit = len(rows) if show_all else SHOWN
        screen.print(title, style="bold")
        table = plain_table()
        for column in ("", *(run.name for run in runs)):
            table.add_column(column, overflow="fold")
        for name, values in list(rows.items())[:limit]:
            table.add_row(Text(plain(name), "dim"), *_cells(screen, values))
        print_table(screen, table)
        _print_omitted(screen, len(rows) - limit)
    if missing := [run.name for run in runs if run.start is None]:
        text = "made by a version of flambe that did not record code and packages: "
        screen.print(f"{text}{', '.join(missing)}", style="dim", soft_wrap=True)
    _print_figures(screen, runs, figures, show_all=show_all)


def _cells(screen: TextConsole, values: Sequence[str | None]) -> list[Text]:
    """Return the values of a row: what the first run does not have is in colour."""
    cells = []
    for number, value in enumerate(values):
        text = "-" if value is None else plain(value)
        if screen.is_terminal and len(text) > LONGEST:
            text = f"{text[: LONGEST - 1]}…"
        differs = number and value != values[0]
        style = "dim" if value is None else "red" if not number else "green" if differs else ""
        cells.append(Text(text, style))
    return cells


def _print_omitted(screen: TextConsole, count: int) -> None:
    if count > 0:
        screen.print(f"and {count} more; --all shows them", style="dim")


def _print_runs(screen: TextConsole, runs: Sequence[ComparedRun]) -> None:
    table = plain_table()
    table.add_column("")
    for run in runs:
        table.add_column(run.name, overflow="fold")

    def line(name: str, cell: Callable[[RunRecord], str | Text]) -> None:
        table.add_row(Text(name, "dim"), *(cell(run.record) for run in runs))

    line("state", _state)
    line("started", lambda record: when_text(record.run.started))
    line("time", _duration)
    line("variants", lambda record: str(count_variants(record)["done"]))
    line("best", _best_figure)
    print_table(screen, table)


def _state(record: RunRecord) -> Text:
    sign, style = status_mark(record.run.status, record.run.failed)
    return Text(f"{sign} {record.run.outcome}", style)


def _duration(record: RunRecord) -> str:
    seconds = run_seconds(record.run)
    return format_duration(seconds) if seconds is not None else ""


def _best_figure(record: RunRecord) -> str:
    best = record.best()
    return f"{figure_text(best.metric)} ({best.stage})" if best is not None else ""


def _print_figures(
    screen: TextConsole,
    runs: Sequence[ComparedRun],
    figures: Sequence[FigureRow],
    *,
    show_all: bool,
) -> None:
    for stage in dict.fromkeys(row.stage for row in figures):
        rows = [row for row in figures if row.stage == stage]
        limit = len(rows) if show_all else SHOWN
        screen.print()
        screen.print(stage, style="bold")
        table = plain_table()
        table.add_column("", overflow="fold")
        for run in runs:
            table.add_column(run.name, justify="right")
        if len(runs) == 2:
            table.add_column("change", justify="right")
        for row in rows[:limit]:
            best = _best(row.metrics)
            cells = [
                Text(figure_text(metric) or "-", "bold" if metric == best else "")
                for metric in row.metrics
            ]
            name = Text(plain(choices_text(row.choices)) or stage, "dim")
            table.add_row(name, *cells, *([_change(row.metrics)] if len(runs) == 2 else []))
        print_table(screen, table)
        _print_omitted(screen, len(rows) - limit)


def _change(metrics: Sequence[float | None]) -> Text:
    first, second = metrics
    if first is None or second is None:
        return Text("")
    change = second - first
    style = "green" if change > 0 else "red" if change < 0 else "dim"
    return Text(f"{change:+.3g}" if change else "=", style)
