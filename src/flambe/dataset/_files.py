"""Reading csv and tsv files; every mistake has its place."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flambe._grammar import as_list
from flambe.dataset._text import Lines, Quoting, other_separator
from flambe.dataset.dataset import DataError
from flambe.errors import did_you_mean, listed

# Some texts are longer than the csv module allows by default.
_LONGEST_FIELD = 2**30


@dataclass
class Rows:
    """The rows of one split, and where they come from.

    Attributes
    ----------
    names
        Of the columns, if they have any.
    rows
        Each of the same length.
    file, lines
        The file, and the line that each row starts in; empty for rows that come from elsewhere.
    sep
        What separates the columns in the file.
    drawn
        Whether they were drawn from a file at random.
    """

    names: list[str] | None
    rows: list[Sequence[object]]
    file: str = ""
    lines: list[int] = field(default_factory=list)
    sep: str = ""
    drawn: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.names) if self.names else (len(self.rows[0]) if self.rows else 0)

    def take(self, indices: Sequence[int]) -> Rows:
        """Return some of the rows, drawn at random."""
        lines = [self.lines[index] for index in indices] if self.lines else []
        rows = [self.rows[index] for index in indices]
        return Rows(self.names, rows, self.file, lines, self.sep, drawn=True)

    def select(self, names: Sequence[str]) -> Rows:
        """Return some of the columns, in the order of their names.

        Raises
        ------
        DataError
            If one is not there.
        """
        assert self.names is not None
        missing = [name for name in names if name not in self.names]
        try:
            indices = [self.column(name, "columns") for name in names]
        except DataError as error:
            other = next(name for name in [*self.names, ""] if name not in names)
            raise DataError(
                f"{error}\n  = columns chooses by the names in the first line of the file; "
                f"transform gives others:   {missing[0]}: {{field: …, columns: {other}}}"
            ) from None
        rows: list[Sequence[object]] = [[row[index] for index in indices] for row in self.rows]
        return Rows(list(names), rows, self.file, self.lines, self.sep, self.drawn)

    def column(self, key: object, why: str) -> int:
        """Return the index of a column.

        Raises
        ------
        DataError
            If there is none.
        """
        where = f"{self.file}: " if self.file else ""
        if isinstance(key, int):
            if not -self.width <= key < self.width:
                raise DataError(f"{where}{why}: no column {key}, there are {self.width}")
            return key % self.width
        if not self.names:
            raise DataError(f"{where}{why}: the columns have no names; give their numbers")
        if not isinstance(key, str) or key not in self.names:
            sep = other_separator(self.names, self.sep) if self.file else ""
            hint = (
                (f"the columns seem to be separated by {sep!r} (set sep)" if sep else "")
                or did_you_mean(str(key), self.names)
                or f"there are {listed(self.names)}"
            )
            raise DataError(f"{where}{why}: no column {key!r}: {hint}")
        return self.names.index(key)

    def location(self, row: int, column: int) -> str:
        """Return where a value stands, as a prefix of a message."""
        name = repr(self.names[column]) if self.names else str(column)
        if not self.lines:
            return f"row {row}, column {name}"
        return f"{self.file}:{self.lines[row]}: column {name}"


def read_file(
    path: str,
    sep: str | None = None,
    header: bool = True,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    quoting: Quoting | None = None,
) -> Rows:
    """Read a file.

    Parameters
    ----------
    path
        The file.
    sep
        What separates columns; by default told from the name of the file, else from its first line.
    header
        Whether the first line holds the names of the columns.
    columns
        Which of them, in that order; without a header, the names of all.
    encoding, quoting
        Of the text; see :class:`~flambe.dataset._text.Lines`.

    Raises
    ------
    DataError
        If the file cannot be read: with the line, and the column where it is known.
    """
    names = as_list(columns, "columns takes a list of names") if columns else None
    if names and (twice := [name for name in names if names.count(name) > 1]):
        raise DataError(f"{path}: columns: {twice[0]!r} stands there twice")
    chosen: list[str] | None = None
    rows: list[Sequence[object]] = []
    lines: list[int] = []
    with _long_fields():
        text = Lines(path, sep, encoding, quoting)
        parsed = iter(text)
        if header:
            line, first = next(parsed, (1, []))
            chosen, names = names, _header(path, line, first)
        for line, row in parsed:
            width = len(names) if names else (len(rows[0]) if rows else len(row))
            if len(row) != width:
                # The column where it goes wrong: the first that is missing or too many.
                column = min(len(row), width) + 1
                raise DataError(
                    f"{path}:{line}: column {column}: {len(row)} columns, not {width} "
                    "(is a separator or a quote missing?)"
                )
            rows.append(row)
            lines.append(line)
    if not rows:
        raise DataError(f"{path} has no rows")
    whole = Rows(names, rows, path, lines, text.sep)
    return whole.select(chosen) if header and chosen else whole


def _header(path: str, line: int, row: list[str]) -> list[str]:
    if not row:
        raise DataError(f"{path} is empty")
    names = [name.strip() for name in row]
    for column, name in enumerate(names, start=1):
        if names.index(name) != column - 1:
            raise DataError(f"{path}:{line}: column {column}: {name!r} stands there twice")
    return names


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
