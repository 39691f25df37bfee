"""``flambe export``: the variants of a run, or all their figures, as a table in a file."""

from __future__ import annotations

import contextlib
import csv
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from flambe import _disk
from flambe._files import replacing
from flambe.cli.runs.selection import iso_time, run_name, select_run
from flambe.cli.runs.show import choice_names, filter_rows
from flambe.errors import ConfigError, Problem, did_you_mean, listed
from flambe.experiment.observer import short_path
from flambe.logging import redact
from flambe.progress import METRICS, RunRecord, VariantRow, flat_rows, read_lines
from flambe.progress.filters import row_values

STDOUT = "-"
AT_ONCE = 50_000  # rows of a Parquet file that are in memory
#: The columns of the series of figures; the hyper-parameters stand between them.
SERIES = ("stage", "variant", "id", "figure", "step", "value")


@dataclass(frozen=True)
class ExportOptions:
    """The options of ``flambe export``."""

    run: str
    filter: Sequence[str] = ()
    csv: str | None = None
    parquet: str | None = None
    stage: str | None = None
    steps: bool = False


def export(options: ExportOptions) -> int:
    """Write the variants of a run, or their figures, to a file."""
    if options.csv is None and options.parquet is None:
        hint = "--csv [FILE]   or   --parquet [FILE]"
        raise ConfigError(Problem("export needs a format", hint=hint))
    record = select_run(options.run, "export")
    rows = _select(record, options)
    entries = iter(_series(rows) if options.steps else _variants(rows))
    if options.csv is not None:
        target = options.csv or STDOUT
        count = _write_csv(entries, target)
    else:
        suffix = ".steps.parquet" if options.steps else ".parquet"
        target = options.parquet or f"{run_name(record.folder)}{suffix}"
        count = _write_parquet(entries, Path(target))
    if target != STDOUT:
        what = "figures" if options.steps else "variants"
        print(f"{count} {what} of {record.run.name} are in {short_path(Path(target).absolute())}")
    return 0


def _select(record: RunRecord, options: ExportOptions) -> list[VariantRow]:
    stages = [stage.name for stage in record.run.stages if stage.runs]
    if options.stage and options.stage not in stages:
        hint = did_you_mean(options.stage, stages) or f"the stages: {listed(stages)}"
        raise ConfigError(Problem(f"--stage: no stage {options.stage!r} in this run", hint=hint))
    rows = record.rows(options.stage or "")
    names = list(
        dict.fromkeys([*choice_names(rows), *(n for r in rows[:1] for n in row_values(r))])
    )
    return filter_rows(rows, " ".join(options.filter), names)


def _variants(rows: Sequence[VariantRow]) -> Iterator[dict[str, object]]:
    """Yield the variants: a column for each hyper-parameter and each figure."""
    for row, values in zip(rows, flat_rows(rows), strict=True):
        variant = row.variant
        yield {
            **values,
            "path": str(row.path.absolute()),
            "id": variant.id,
            "host": variant.host,
            "started": iso_time(variant.started),
            "ended": iso_time(variant.ended),
        }


def _series(rows: Sequence[VariantRow]) -> Iterator[dict[str, object]]:
    """Yield each figure that a variant logged, step by step, with its hyper-parameters."""
    names = choice_names(rows)
    columns = {name: f"params.{name}" if name in SERIES else name for name in names}
    # The first rows of the table are of few variants: the types of all have to be the same.
    kinds = {name: _kind(row.variant.choices.get(name) for row in rows) for name in names}
    for row in rows:
        variant = row.variant
        choices = {
            column: _cell(variant.choices.get(name), kinds[name])
            for name, column in columns.items()
        }
        for line in read_lines(row.path / METRICS):
            value = _figure(line.get("value"))
            tag, step = line.get("tag"), line.get("step")
            if value is None or not isinstance(tag, str):
                continue
            yield {
                "stage": variant.stage,
                "variant": variant.name,
                "id": variant.id,
                **choices,
                "figure": tag,
                "step": step if isinstance(step, int) and -(2**63) <= step < 2**63 else None,
                "value": value,
            }


def _figure(value: object) -> float | None:
    """Return a logged figure; JSON cannot hold those that are not finite, which are text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    return None


# -- files ------------------------------------------------------------------------------------


def _write_csv(entries: Iterator[dict[str, object]], target: str) -> int:
    if target == STDOUT:
        return _write_lines(entries, sys.stdout)
    with _writing(Path(target)) as part, open(part, "w", encoding="utf-8", newline="") as stream:
        return _write_lines(entries, stream)


def _write_lines(entries: Iterator[dict[str, object]], stream: TextIO) -> int:
    first = next(entries, None)
    if first is None:
        return 0
    writer = csv.DictWriter(stream, list(first), lineterminator="\n")
    writer.writeheader()
    count = 0
    for entry in itertools.chain([first], entries):
        writer.writerow({name: _csv_value(value) for name, value in entry.items()})
        count += 1
    return count


def _csv_value(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return redact.hide(value) if isinstance(value, str) else value


def _write_parquet(entries: Iterator[dict[str, object]], target: Path) -> int:
    """Write a table: its columns have the types of all variants, whatever the first rows hold."""
    import pyarrow as pa
    from pyarrow import parquet

    head = list(itertools.islice(entries, AT_ONCE))
    names = list(head[0]) if head else []
    kinds = {name: _kind(entry[name] for entry in head) for name in names}
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([pa.field(name, types[kind]) for name, kind in kinds.items()])
    count = 0
    with _writing(target) as part, parquet.ParquetWriter(part, schema) as writer:
        while head:
            columns = {n: [_cell(entry[n], kinds[n]) for entry in head] for n in names}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(head)
            head = list(itertools.islice(entries, AT_ONCE))
    return count


def _kind(values: Iterable[object]) -> type:
    """Return the type that holds all values: text, where they are of several."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 and kinds <= {bool, int, float, str} else str


def _cell(value: object, kind: type) -> object:
    if value is None or type(value) is kind:
        return redact.hide(value) if isinstance(value, str) else value
    return float(str(value)) if kind is float else redact.hide(str(value))


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[Path]:
    """Yield a file beside the target, which takes its name when it is whole."""
    try:
        with replacing(target) as part:
            yield part
    except OSError as error:
        raise ConfigError(_disk.reason(error, target)) from None
