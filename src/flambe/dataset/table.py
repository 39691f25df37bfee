"""Rows of one split of a data set, kept as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import torch

from flambe.field import Ragged

Column = torch.Tensor | Ragged | list[Any]


class Table(Sequence[tuple[Any, ...]]):
    """A sequence of rows, kept as columns so that batches need no work for each row.

    Parameters
    ----------
    columns
        From name to column: tensors of shape (n, ...), :class:`~flambe.field.Ragged` or lists.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns have different lengths: {lengths}")
        self.names = list(columns)
        self.columns = list(columns.values())
        self._length = next(iter(lengths.values()), 0)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Any, ...] | list[tuple[Any, ...]]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"row {index} of {self._length}")
        return tuple(column[index] for column in self.columns)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (self[row] for row in range(self._length))

    def __repr__(self) -> str:
        return f"Table({self._length} rows of {', '.join(self.names)})"
