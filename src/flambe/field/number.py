"""Numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from flambe.field.field import Field, FieldError
from flambe.field.ragged import Ragged

# What becomes infinite in float32: half a unit above its largest number.
_TOO_LARGE = 2.0**128 * (1 - 2.0**-25)
_LONGEST = 60  # characters of a value in a message


class NumberField(Field):
    """Turns columns of numbers into one tensor: the features of a model.

    Parameters
    ----------
    scale
        Whether each column is shifted and scaled to mean 0 and standard deviation 1, both measured
        on the training data.
    integers
        Whether to return int64 instead of float32; they are not scaled.
    """

    def __init__(self, scale: bool = False, integers: bool = False) -> None:
        if scale and integers:
            raise ValueError("integers are not scaled: leave out one of the two")
        self.scale = scale
        self.integers = integers
        self.means: list[float] = []
        self.deviations: list[float] = []
        self.register_attrs("means", "deviations")

    def setup_columns(
        self, train: Sequence[Sequence[object]], *others: Sequence[Sequence[object]]
    ) -> None:
        """Measure the columns of the training data."""
        if not self.scale:
            return
        values = torch.stack([self._parsed(column) for column in train]).double()
        self.means = values.mean(1).tolist()
        spread = values.std(1, correction=0)
        # A constant column stays at zero.
        self.deviations = torch.where(spread == 0, 1.0, spread).tolist()

    def setup(self, train: Sequence[object], *others: Sequence[object]) -> None:
        """Measure a single column of the training data."""
        self.setup_columns([train])

    def process(self, value: object) -> torch.Tensor:
        """Return one number as it is, not scaled: shape ()."""
        return self._parsed([value])[0]

    def process_column(self, values: Sequence[object]) -> torch.Tensor:
        """Return the numbers of a column as they are: shape (n,)."""
        return self._parsed(values)

    def process_columns(self, columns: Sequence[Sequence[object]]) -> list[torch.Tensor | Ragged]:
        """Return one tensor: shape (n, columns), or (n,) if there is one."""
        values = torch.stack([self._parsed(column) for column in columns], dim=1)
        if self.scale:
            means, deviations = torch.tensor(self.means), torch.tensor(self.deviations)
            values = (values - means) / deviations
        return [values.squeeze(1) if len(columns) == 1 else values]

    def _parsed(self, values: Sequence[object]) -> torch.Tensor:
        numbers: list[float] = []
        for row, value in enumerate(values):
            number = self._number(value, row)
            if self.integers:
                if not -(2**63) <= number < 2**63:
                    raise FieldError(f"{_shorten(value)} is too large for int64", row)
            elif not math.isfinite(number):
                raise FieldError(f"{value!r} is not a finite number", row)
            elif abs(number) >= _TOO_LARGE:
                raise FieldError(f"{value!r} is too large for float32", row)
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.int64 if self.integers else torch.float32)

    def _number(self, value: Any, row: int) -> float:
        try:
            if not self.integers:
                return float(value)
            whole = int(value)
        except (TypeError, ValueError, OverflowError):
            kind = "whole number" if self.integers else "number"
            raise FieldError(f"{_shorten(value)} is not a {kind}", row) from None
        if isinstance(value, float) and whole != value:
            raise FieldError(f"{value!r} is not a whole number", row)
        return whole


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
