"""From rows to the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flambe.dataset import DataError, Table
from flambe.field import Ragged

Batch = tuple[torch.Tensor, ...]
Columns = list[torch.Tensor | Ragged]


def columns_of(data: Sequence[object]) -> Columns | None:
    """Return data that is in memory as columns, and None for what is not.

    Raises
    ------
    DataError
        If a value is no number and no tensor.
    """
    if isinstance(data, Table):
        return [
            column if isinstance(column, torch.Tensor | Ragged) else _column(column, name)
            for name, column in zip(data.names, data.columns, strict=True)
        ]
    if isinstance(data, torch.utils.data.TensorDataset):
        return list(data.tensors)
    if isinstance(data, list | tuple) and data:
        return [_column([row[index] for row in data], str(index)) for index in range(len(data[0]))]
    return None


def from_columns(columns: Columns, rows: torch.Tensor, pad_index: int) -> Batch:
    """Cut a batch out of columns."""
    return tuple(
        column.pad(rows, pad_index) if isinstance(column, Ragged) else column.index_select(0, rows)
        for column in columns
    )


class Collate:
    """Makes a batch of rows that were read one by one.

    Parameters
    ----------
    pad_index
        What sequences are padded with.
    """

    def __init__(self, pad_index: int) -> None:
        self.pad_index = pad_index

    def __call__(self, rows: Sequence[Sequence[object]]) -> Batch:
        every = torch.arange(len(rows))
        columns = [
            _column([row[index] for row in rows], str(index)) for index in range(len(rows[0]))
        ]
        return tuple(
            column.pad(every, self.pad_index) if isinstance(column, Ragged) else column
            for column in columns
        )


def _column(values: Sequence[object], name: str) -> torch.Tensor | Ragged:
    try:
        if not isinstance(values[0], torch.Tensor | list | tuple) and not hasattr(
            values[0], "shape"
        ):
            return torch.tensor(values)
        tensors = [torch.as_tensor(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"column {name} cannot be batched: {error}; give the data set a transform"
        ) from None
    if all(tensor.shape == tensors[0].shape for tensor in tensors):
        return torch.stack(tensors)
    return Ragged.of(tensors)
