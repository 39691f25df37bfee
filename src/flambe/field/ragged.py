"""Sequences of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Ragged:
    """Sequences of different lengths, kept one after another.

    Batches are cut and padded with a few tensor operations, whatever their size.

    Parameters
    ----------
    values
        All sequences, concatenated: shape (total, ...).
    lengths
        The length of each: shape (n,), int64.
    """

    def __init__(self, values: torch.Tensor, lengths: torch.Tensor) -> None:
        if int(lengths.sum()) != len(values):
            raise ValueError(f"the lengths add up to {int(lengths.sum())}, not {len(values)}")
        self.values = values
        self.lengths = lengths
        self.offsets = lengths.cumsum(0) - lengths

    @classmethod
    def of(cls, sequences: Sequence[torch.Tensor]) -> Ragged:
        """Concatenate sequences: each of shape (length, ...)."""
        lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
        return cls(torch.cat(list(sequences)) if sequences else torch.empty(0), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> torch.Tensor:
        start, length = int(self.offsets[index]), int(self.lengths[index])
        return self.values[start : start + length]

    def pad(self, rows: torch.Tensor, pad_index: float = 0) -> torch.Tensor:
        """Return some of the sequences, padded at their end to the longest of them.

        Parameters
        ----------
        rows
            Which: shape (batch,), int64.
        pad_index
            The value to pad with.

        Returns
        -------
        torch.Tensor
            Shape (batch, longest, ...).
        """
        lengths = self.lengths[rows].unsqueeze(1)
        width = int(lengths.max()) if len(rows) else 0
        if width == 0:
            return self.values.new_full((len(rows), 0, *self.values.shape[1:]), pad_index)
        positions = torch.arange(width)
        source = (self.offsets[rows].unsqueeze(1) + positions).clamp_(max=len(self.values) - 1)
        padding = positions >= lengths
        padded = self.values[source]
        padded[padding] = pad_index
        return padded
