"""The base of all fields."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from flambe.compile import Component
from flambe.errors import RunError
from flambe.field.ragged import Ragged


class FieldError(RunError):
    """A value cannot be turned into a tensor.

    Attributes
    ----------
    row
        The index of the value in its column, if known.
    unseen
        Whether the value is one that the training data lacks.
    """

    def __init__(self, message: str, row: int | None = None, unseen: bool = False) -> None:
        super().__init__(message, row, unseen)
        self.message = message
        self.row = row
        self.unseen = unseen

    def __str__(self) -> str:
        return self.message


class Field(Component):
    """Turns the values of a column into tensors.

    This one takes values that ``torch.as_tensor`` understands. A field of your own implements
    :meth:`process`, and :meth:`setup` if it has to see the data first.
    """

    def setup(self, train: Sequence[Any], *others: Sequence[Any]) -> None:
        """See the data, once, before anything is processed.

        Parameters
        ----------
        train
            The values of the training data.
        others
            Those of the validation and the test data.
        """

    def setup_columns(
        self, train: Sequence[Sequence[Any]], *others: Sequence[Sequence[Any]]
    ) -> None:
        """See the columns that the field is for; here their values are taken together."""
        joined = [list(itertools.chain.from_iterable(columns)) for columns in (train, *others)]
        self.setup(*joined)

    def process(self, value: Any) -> torch.Tensor:
        """Turn one value into a tensor.

        Raises
        ------
        FieldError
            If it cannot be.
        """
        try:
            tensor = torch.as_tensor(value)
            infinite = torch.isinf(tensor) if tensor.is_floating_point() else None
            if infinite is not None and infinite.any():
                exact = torch.as_tensor(value, dtype=torch.float64)
                if not torch.equal(infinite, torch.isinf(exact)):
                    raise FieldError(
                        f"{value!r} is too large for {tensor.dtype}".replace("torch.", "")
                    )
            return tensor
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, FieldError):
                raise
            raise FieldError(f"{value!r} is not a number: {error}") from None

    def process_column(self, values: Sequence[Any]) -> torch.Tensor | Ragged:
        """Turn a column into one tensor, or into sequences if their lengths differ.

        Raises
        ------
        FieldError
            If a value cannot be: it says which.
        """
        rows = []
        for row, value in enumerate(values):
            try:
                rows.append(self.process(value))
            except FieldError as error:
                raise FieldError(error.message, row) from None
        return stacked(rows)

    def process_columns(self, columns: Sequence[Sequence[Any]]) -> list[torch.Tensor | Ragged]:
        """Turn the columns that the field is for into those of the batches: one each here."""
        return [self.process_column(values) for values in columns]


def stacked(rows: Sequence[torch.Tensor]) -> torch.Tensor | Ragged:
    """Stack tensors of one shape; those that differ in their first dimension become a Ragged."""
    if not rows:
        return torch.empty(0)
    if all(row.shape == rows[0].shape for row in rows):
        return torch.stack(list(rows))
    return Ragged.of(rows)
