"""Data sets from tables: csv and tsv files, or rows."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from flambe._grammar import as_list
from flambe.compile import Schema, registrable_factory
from flambe.dataset._files import Rows, read_file
from flambe.dataset.dataset import BaseDataset, DataError
from flambe.dataset.table import Column, Table
from flambe.field import Field, FieldError

Transform = Mapping[str, Field | Mapping[str, object]]


class TabularDataset(BaseDataset):
    """Training, validation and test data from tables.

    ``!TabularDataset.from_path`` reads files, and ``!TabularDataset.autogen`` splits a single one.

    Parameters
    ----------
    train, val, test
        Rows, each a list of values.
    named_columns
        The names of the columns.
    transform
        The columns of the batches, in that order; the last is the target. From a name to a field,
        which takes the column of that name (or, if columns have no names, the one at that
        position); or to ``{field: …, columns: …}``, with a name, a number or a list of those.
        Without it rows stay as they are.

    Attributes
    ----------
    train, val, test
        The splits, as :class:`~flambe.dataset.Table`.
    transform
        The fields: ``!@ dataset[transform][text].vocab_size``.

    Raises
    ------
    DataError
        If the data does not fit: with file, line and column.
    """

    def __init__(
        self,
        train: Sequence[Sequence[object]],
        val: Sequence[Sequence[object]] | None = None,
        test: Sequence[Sequence[object]] | None = None,
        named_columns: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        why = "named_columns takes a list of names"
        names = as_list(named_columns, why) if named_columns else None
        splits = {
            name: rows if isinstance(rows, Rows) else _checked(name, list(rows or ()), names)
            for name, rows in (("train", train), ("val", val), ("test", test))
        }
        self.transform = transform
        self.train, self.val, self.test = _tables(splits, transform)

    @registrable_factory
    @classmethod
    def from_path(
        cls,
        train_path: str,
        val_path: str | None = None,
        test_path: str | None = None,
        *,
        sep: str | None = None,
        header: bool = True,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        quoting: Literal["minimal", "none"] | None = None,
        transform: Transform | None = None,
    ) -> TabularDataset:
        """Read one file for each split.

        Parameters
        ----------
        train_path, val_path, test_path
            The files.
        sep
            What separates columns; by default a comma in ``.csv``, a tab in ``.tsv``, and in other
            files what stands in the first line most often.
        header
            Whether the first line holds the names of the columns.
        columns
            Which columns there are, in that order, by their names in the first line. Where there is
            no such line (``header`` is false): the names of all columns of the file.
        encoding
            Of the text.
        quoting
            ``minimal``: a value may stand in quotes, which are not a part of it. ``none``: quotes
            are text like any other. By default ``minimal``; but in tab-separated files a value
            ends with its line, so that a quote without a second one is text, and in others it is a
            mistake if a quote joins lines that would be rows on their own.
        transform
            As in the constructor.
        """
        splits = [
            read_file(path, sep, header, columns, encoding, quoting) if path is not None else None
            for path in (train_path, val_path, test_path)
        ]
        return cls._of(splits, transform)

    @registrable_factory
    @classmethod
    def autogen(
        cls,
        data_path: str,
        test_path: str | None = None,
        *,
        val_ratio: float = 0.2,
        test_ratio: float = 0.2,
        seed: int = 0,
        sep: str | None = None,
        header: bool = True,
        columns: Sequence[str] | None = None,
        encoding: str = "utf-8",
        quoting: Literal["minimal", "none"] | None = None,
        transform: Transform | None = None,
    ) -> TabularDataset:
        """Split the rows of one file at random.

        Parameters
        ----------
        data_path
            The file.
        test_path
            A file with the test data; then none is split off.
        val_ratio, test_ratio
            The share of validation and of test data.
        seed
            Of the split: the same on every machine.
        sep, header, columns, encoding, quoting, transform
            As in :meth:`from_path`.
        """
        rows = read_file(data_path, sep, header, columns, encoding, quoting)
        test = read_file(test_path, sep, header, columns, encoding, quoting) if test_path else None
        if test is not None:
            test_ratio = 0.0
        if not (val_ratio >= 0 and test_ratio >= 0 and val_ratio + test_ratio < 1):
            raise ValueError("val_ratio and test_ratio are at least 0, and their sum is below 1")
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        n_test, n_val = round(test_ratio * len(rows)), round(val_ratio * len(rows))
        parts = [order[n_test + n_val :], order[n_test : n_test + n_val], order[:n_test]]
        train, val, split_off = (rows.take(sorted(part)) for part in parts)
        return cls._of([train, val, split_off if test is None else test], transform)

    @classmethod
    def input_files(cls, schema: Schema) -> Iterator[str]:
        """Yield the files of the splits."""
        try:
            bound = inspect.signature(schema.resolve()).bind_partial(*schema.args, **schema.kwargs)
        except TypeError:
            return  # it is told where it is checked
        for name in ("train_path", "val_path", "test_path", "data_path"):
            if isinstance(path := bound.arguments.get(name), str):
                yield path

    @classmethod
    def _of(cls, splits: Sequence[Rows | None], transform: Transform | None) -> TabularDataset:
        # The constructor takes Rows for rows: they know their lines.
        train, val, test = splits
        return cls(train, val, test, transform=transform)  # type: ignore[arg-type]


def _checked(split: str, rows: list[Sequence[object]], names: list[str] | None) -> Rows:
    width = len(names) if names else (len(rows[0]) if rows else 0)
    for index, row in enumerate(rows):
        if len(row) != width:
            raise DataError(f"row {index} of {split} has {len(row)} columns, not {width}")
    return Rows(names, rows)


def _tables(splits: Mapping[str, Rows], transform: Transform | None) -> list[Table]:
    train = splits["train"]
    for name, rows in splits.items():
        if len(rows) and (rows.width, rows.names) != (train.width, train.names):
            raise DataError(
                f"{rows.file or name}: the columns are {rows.names or rows.width}, and those of "
                f"{train.file or 'train'} are {train.names or train.width}"
            )
    if transform is None:
        names = train.names or [str(index) for index in range(train.width)]
        return [
            Table({name: [row[i] for row in rows.rows] for i, name in enumerate(names)})
            for rows in splits.values()
        ]
    tables: list[dict[str, Column]] = [{} for _ in splits]
    for position, (name, entry) in enumerate(transform.items()):
        field, indices = _field(name, entry, position, train)
        columns = [
            [[row[index] for row in rows.rows] for index in indices] for rows in splits.values()
        ]
        with _placed(train, indices, columns[0]):
            field.setup_columns(*columns)
        for table, own, rows in zip(tables, columns, splits.values(), strict=True):
            if len(rows):
                with _placed(rows, indices, own):
                    processed = field.process_columns(own)
                names = [name]
                if len(processed) != 1:
                    names = [f"{name}_{index}" for index in range(len(processed))]
                table.update(zip(names, processed, strict=True))
    return [Table(table) for table in tables]


def _field(
    name: str, entry: Field | Mapping[str, object], position: int, rows: Rows
) -> tuple[Field, list[int]]:
    """Return a field of the transform, and the columns that it is for."""
    why = f"transform {name!r}"
    if isinstance(entry, Field):
        key: str | int = name if rows.names else position
        return entry, [rows.column(key, why)]
    unknown = sorted(set(entry) - {"field", "columns"})
    field, keys = entry.get("field"), entry.get("columns", name if rows.names else position)
    if unknown or not isinstance(field, Field):
        raise DataError(f"{why}: expected a field, or {{field: …, columns: …}}")
    keys = keys if isinstance(keys, list | tuple) else [keys]
    if not keys:
        raise DataError(f"{why}: columns is empty")
    return field, [rows.column(key, why) for key in keys]


@contextlib.contextmanager
def _placed(rows: Rows, indices: list[int], columns: list[list[object]]) -> Iterator[None]:
    """Give the error of a field the place of the value."""
    try:
        yield
    except FieldError as error:
        if error.row is None:
            raise DataError(f"{rows.file}: {error}" if rows.file else str(error)) from None
        # A field says which row; of several columns it is the first that holds the value.
        column = next(
            (
                index
                for index, values in zip(indices, columns, strict=True)
                if repr(values[error.row]) in error.message
            ),
            indices[0],
        )
        why = (
            "\n  the split left it out of the training data: list all labels (labels: [...]), or "
            "set another seed"
            if error.unseen and rows.drawn
            else ""
        )
        raise DataError(f"{rows.location(error.row, column)}: {error}{why}") from None
