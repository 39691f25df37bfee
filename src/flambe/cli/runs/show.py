"""``flambe show``: the variants of a run, filtered and sorted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from flambe.cli.results import MARKS, failure_reason, summary_line
from flambe.cli.runs.selection import (
    iso_time,
    parse_names,
    plain_table,
    print_json,
    print_table,
    select_run,
    wide_console,
)
from flambe.errors import ConfigError, Problem, did_you_mean, listed
from flambe.progress import RunRecord, VariantRow, figure_text, format_duration, is_number
from flambe.progress.filters import ALIASES, parse, row_values, short_text, unknown_columns

#: The columns besides hyper-parameters that can be shown; the first ones are, where they say much.
SHOWN = ("best", "metric", "steps", "time", "state", "host", "error", "id")
FURTHER = ("stage", "variant", "kept", "stale", "reason", "attempts", "started", "ended", "path")
LONGEST = 100  # characters of an error on a terminal


@dataclass(frozen=True)
class ShowOptions:
    """The options of ``flambe show``."""

    run: str
    filter: Sequence[str] = ()
    stage: str | None = None
    sort: str | None = None
    reverse: bool = False
    columns: str | None = None
    limit: int = 50
    all: bool = False
    json: bool = False


def show(options: ShowOptions) -> int:
    """Show the variants of a run."""
    record = select_run(options.run, "show")
    stages = [stage.name for stage in record.run.stages if stage.runs]
    if options.stage and options.stage not in stages:
        hint = did_you_mean(options.stage, stages) or f"the stages: {listed(stages)}"
        raise ConfigError(Problem(f"--stage: no stage {options.stage!r} in this run", hint=hint))
    if options.limit < 1:
        raise ConfigError(Problem("--limit must be at least 1", hint="--all shows every variant"))
    rows = record.rows(options.stage or "")
    columns = choice_names(rows)
    names = [*columns, *(n for n in (*SHOWN, *FURTHER) if n not in columns)]
    selected = parse_names(options.columns, names, "--columns") if options.columns else []
    matching = filter_rows(rows, " ".join(options.filter), names)
    if options.sort:
        (column,) = parse_names(options.sort, [*names, *ALIASES], "--sort")[:1] or [""]
        matching = sort_rows(matching, ALIASES.get(column, column), reverse=options.reverse)
    if options.json:
        print_json([_json_row(row, selected) for row in matching])
        return 0
    _print(record, matching, len(rows), selected, options)
    return 0


def choice_names(rows: Sequence[VariantRow]) -> list[str]:
    """Return the names of all hyper-parameters, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row.variant.choices))


def filter_rows(rows: Sequence[VariantRow], text: str, names: Sequence[str]) -> list[VariantRow]:
    """Return the rows that a filter lets through.

    Raises
    ------
    ConfigError
        If the filter misspells the name of a column.
    """
    for name in unknown_columns(text, names):
        # Text with such a sign in it is rare, and a misspelled name is not.
        if hint := did_you_mean(name, [*names, *ALIASES]):
            raise ConfigError(Problem(f"the filter names no column: {name!r}", hint=hint))
    matches = parse(text, names)
    return [row for row in rows if matches(row)]


def sort_rows(rows: Sequence[VariantRow], column: str, *, reverse: bool) -> list[VariantRow]:
    """Return rows by a column, as the site sorts them: the largest figures, or the first text.

    What has no value comes last, whichever way others are sorted.
    """
    pairs = [(cell_value(row, column), row) for row in rows]
    figures = [(value, row) for value, row in pairs if _is_figure(value)]
    texts = [
        (str(value), row) for value, row in pairs if isinstance(value, str | bool) and value != ""
    ]
    # Equal ones stay in order, also where the order is reversed.
    figures.sort(key=lambda pair: _as_figure(pair[0]), reverse=not reverse)
    texts.sort(key=lambda pair: pair[0].lower(), reverse=reverse)
    present = [row for _, row in (*figures, *texts)]
    identities = {id(row) for row in present}
    return [*present, *(row for row in rows if id(row) not in identities)]


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_number(value)


def _as_figure(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def cell_value(row: VariantRow, column: str) -> object:
    """Return what a column holds for a variant."""
    values = row_values(row)
    if column in values:
        return values[column]
    variant = row.variant
    further: dict[str, Callable[[], object]] = {
        "id": lambda: variant.id,
        "stage": lambda: variant.stage,
        "variant": lambda: variant.name,
        "kept": lambda: variant.kept,
        "stale": lambda: variant.stale,
        "reason": lambda: variant.reason,
        "attempts": lambda: variant.attempts,
        "started": lambda: iso_time(variant.started),
        "ended": lambda: iso_time(variant.ended),
        "path": lambda: str(row.path.absolute()),
    }
    return further[column]() if column in further else None


def _json_row(row: VariantRow, selected: Sequence[str]) -> dict[str, object]:
    if selected:
        return {name: cell_value(row, name) for name in selected}
    return {
        "id": row.variant.id,
        "stage": row.variant.stage,
        "choices": row.variant.choices,
        **{name: cell_value(row, name) for name in (*SHOWN[:-1], *FURTHER[1:])},
    }


# -- tables -----------------------------------------------------------------------------------


def _print(
    record: RunRecord,
    rows: Sequence[VariantRow],
    total: int,
    selected: Sequence[str],
    options: ShowOptions,
) -> None:
    screen = wide_console()
    for stage in dict.fromkeys(row.variant.stage for row in rows):
        own = [row for row in rows if row.variant.stage == stage]
        limit = len(own) if options.all else options.limit
        screen.print(stage, style="bold")
        print_table(screen, _table(own[:limit], selected or _default_columns(own)))
        if len(own) > limit:
            screen.print(f"and {len(own) - limit} more; --all shows them", style="dim")
        screen.print()
    if not rows:
        text = "no variant is like that" if total else "there are no variants yet"
        screen.print(text, style="dim")
    screen.print(summary_line(record.run, list(record.variants.values())), soft_wrap=True)
    if len(rows) != total:
        screen.print(f"  {len(rows)} of {total} variants match", style="dim", soft_wrap=True)


def _default_columns(rows: Sequence[VariantRow]) -> list[str]:
    """Return hyper-parameters and what became of them; columns without a value are left out."""
    choices = choice_names(rows)
    fixed = [name for name in SHOWN if name not in choices]
    optional = [n for n in ("host", "error") if not any(cell_value(r, n) for r in rows)]
    hosts = {host for row in rows if (host := cell_value(row, "host"))}
    return [
        *choices,
        *(n for n in fixed if n not in optional and not (n == "host" and len(hosts) == 1)),
    ]


def _table(rows: Sequence[VariantRow], columns: Sequence[str]) -> Table:
    table = plain_table()
    for name in columns:
        is_right = name == "time" or all(_is_number(cell_value(row, name)) for row in rows)
        table.add_column(
            name,
            justify="right" if is_right else "left",
            overflow="fold",
            no_wrap=name in ("best", "metric", "steps", "time", "state", "id"),
        )
    for row in rows:
        table.add_row(*(_cell(row, name) for name in columns))
    return table


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(row: VariantRow, column: str) -> str | Text:
    variant = row.variant
    value = cell_value(row, column)
    if column in variant.choices:
        return short_text(value)
    if column == "state":
        sign, style = MARKS[variant.status]
        extra = ", kept" if variant.kept else ""
        return Text(
            f"{sign} {variant.status.value}{extra}{', stale' if variant.stale else ''}", style
        )
    if column in ("best", "metric"):
        return figure_text(value if isinstance(value, int | float) else None)
    if column == "time":
        return format_duration(row.seconds) if row.seconds is not None else ""
    if column == "error":
        return Text(failure_reason(variant)[:LONGEST], "red")
    return variant.id[:8] if column == "id" else short_text(value)
