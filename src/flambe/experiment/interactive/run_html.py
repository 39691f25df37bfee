"""A run as HTML, for notebooks: quiet tables that fit light and dark themes, without scripts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flambe.experiment.observer import short_path, variant_label
from flambe.logging import redact
from flambe.logging.plain import plain
from flambe.progress import (
    RunRecord,
    RunState,
    StageState,
    Status,
    VariantRow,
    VariantState,
    best_so_far,
    count_text,
    figure_text,
    format_duration,
    steady_time,
)
from flambe.progress.text import SIGNS

ROWS = 10  # variants of a stage
LONGEST = 300  # characters of a value, or of a line of output

# Colours are of the middle, readable on white and on black; all else is the notebook's own.
_STYLE = """<style>
.flambe {font-size: 13px; line-height: 1.5; max-width: 72em}
.flambe table {border-collapse: collapse; margin: .3em 0 .8em; border: 0; font-size: inherit}
.flambe td:not(:last-child), .flambe th {white-space: nowrap}
.flambe th, .flambe td {padding: .15em 1.2em .15em 0; text-align: left; border: 0;
 background: none; color: inherit; font-variant-numeric: tabular-nums}
.flambe th {font-weight: 600; border-bottom: 1px solid rgba(128,128,128,.4)}
.flambe .dim {opacity: .65}
.flambe .good {color: #1f9d55} .flambe .bad {color: #e0483e} .flambe .busy {color: #2f81d6}
.flambe .bar {display: inline-block; width: 9em; height: .5em; border-radius: .25em;
 background: rgba(128,128,128,.25); overflow: hidden; vertical-align: middle}
.flambe .bar i {display: block; height: 100%; background: currentColor}
.flambe pre {margin: .3em 0; font-size: 12px; white-space: pre-wrap; background: none}
.flambe summary {cursor: pointer}
</style>"""

_STYLES = {
    Status.WAITING: "dim",
    Status.RUNNING: "busy",
    Status.FINISHED: "good",
    Status.STOPPED: "good",
    Status.REUSED: "good",
    Status.FAILED: "bad",
    Status.INTERRUPTED: "dim",
    Status.MASKED: "dim",
}
_MARKS = {status: (SIGNS[status], style) for status, style in _STYLES.items()}


@dataclass(frozen=True)
class Output:
    """What a live table shows below the stages.

    Attributes
    ----------
    notes
        The latest messages about the run.
    lines
        The latest lines of components.
    """

    notes: Sequence[str] = ()
    lines: Sequence[str] = ()


def run_html(record: RunRecord) -> str:
    """Return a run: its stages, and the best variants of each."""
    tables = [
        stage_table(record, stage)
        for stage in reversed(record.run.stages)
        if stage.runs and record.of(stage.name)
    ]
    error = f'<pre class="bad">{_text(record.run.error, 2000)}</pre>' if record.run.error else ""
    return _framed(_overview(record), error, *tables, _folder(record))


def live_html(record: RunRecord, output: Output) -> str:
    """Return a run for the cell that runs it: its stages, and the latest output."""
    notes = "".join(f'<div class="dim">{_text(text)}</div>' for text in output.notes)
    lines = "".join(f"{_text(text)}\n" for text in output.lines)
    block = f"<details open><summary>output</summary><pre>{lines}</pre></details>" if lines else ""
    return _framed(_overview(record), notes, block, _folder(record))


def _folder(record: RunRecord) -> str:
    return f'<div class="dim">{_text(short_path(record.folder.root))}</div>'


def stage_html(record: RunRecord, stage: str) -> str:
    """Return a stage: the best of its variants."""
    return _framed(stage_table(record, record.run.stage(stage)))


def _framed(*parts: str) -> str:
    return f'{_STYLE}<div class="flambe">{"".join(parts)}</div>'


def _text(text: object, longest: int = LONGEST) -> str:
    """Return text for a page: what a component, a file or another host wrote is never markup."""
    clean = plain(redact.hide(str(text)))
    cut = clean if len(clean) <= longest else f"{clean[:longest]}…"
    return html.escape(cut)


def _mark(status: Status, text: str, failed: int = 0) -> str:
    sign, style = _MARKS[status]
    if failed and status is Status.FINISHED:
        sign, style = "✘", "bad"
    return f'<span class="{style}">{sign}</span> {_text(text)}'


def _overview(record: RunRecord) -> str:
    run = record.run
    title = f"<b>{_mark(run.status, run.name, run.failed)}</b> {_text(run.outcome)}"
    if run.started:
        end = run.ended or steady_time()
        title += f" {'in' if run.ended else 'for'} {format_duration(max(0.0, end - run.started))}"
    by_stage: dict[str, list[VariantState]] = {}
    for variant in list(record.variants.values()):
        by_stage.setdefault(variant.stage, []).append(variant)
    rows = [
        _stage_row(run, stage, by_stage.get(stage.name, [])) for stage in run.stages if stage.runs
    ]
    return f"<div>{title}</div>{_table((), rows)}"


def _stage_row(run: RunState, stage: StageState, variants: Sequence[VariantState]) -> list[str]:
    masked = sum(variant.status is Status.MASKED for variant in variants)
    failed = sum(variant.status is Status.FAILED for variant in variants)
    done = sum(variant.status.done for variant in variants)
    share = min(1.0, done / max(1, stage.total - masked))
    style = _MARKS[stage.status][1]
    end = stage.ended or run.ended or steady_time()
    duration = format_duration(max(0.0, end - stage.started)) if stage.started else ""
    best = best_so_far(variants)
    text = f"best {best[0]} ({variant_label(best[1], stage=False)})" if best else ""
    return [
        _mark(stage.status, stage.name, failed),
        f'<span class="bar {style}"><i style="width:{share:.1%}"></i></span>',
        _text(count_text(stage, variants)),
        duration,
        _text(text),
    ]


def stage_table(record: RunRecord, stage: StageState) -> str:
    """Return the best variants of a stage as a table."""
    rows = record.rows(stage.name)
    best = rows[:ROWS]
    names = list(dict.fromkeys(name for row in best for name in row.variant.choices))
    reasons = any(_reason(row.variant) for row in best)
    heads = [*names, "metric", "steps", "time", "state", *(["reason"] if reasons else [])]
    cells = [_cells(row, names, reasons=reasons) for row in best]
    hidden = len(rows) - len(best)
    more = f'<div class="dim">and {hidden:,} more: .variants has all</div>' if hidden else ""
    return f"<div><b>{_text(stage.name)}</b></div>{_table(heads, cells)}{more}"


def _cells(row: VariantRow, names: Iterable[str], *, reasons: bool) -> list[str]:
    variant = row.variant
    state = variant.status.value + (", kept" if variant.kept else "")
    cells = [_value(variant.choices, name) for name in names]
    cells += [_text(figure_text(variant.metric)), str(variant.step)]
    cells += [format_duration(row.seconds) if row.seconds is not None else ""]
    cells += [_mark(variant.status, state)]
    return [*cells, *([_text(_reason(variant))] if reasons else [])]


def _reason(variant: VariantState) -> str:
    """Return, on one line, why a variant failed, or was not run."""
    return variant.error.strip().partition("\n")[0] or variant.reason


def _value(choices: Mapping[str, object], name: str) -> str:
    value = choices.get(name, "")
    return _text(f"{value:.6g}" if isinstance(value, float) else value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the cells are HTML, the titles are text."""
    head = "".join(f"<th>{_text(title)}</th>" for title in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
