"""Accuracy."""

from __future__ import annotations

import math

import torch

from flambe.metric.metric import Metric, classes


class Accuracy(Metric):
    """The share of correct predictions.

    Predictions are scores (..., classes) with targets (...), or classes, or probabilities of
    class 1; see :func:`flambe.metric.metric.classes`.

    Parameters
    ----------
    ignore_index
        Rows of that true class (padding, say) do not count.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all that was given."""
        self._correct: torch.Tensor | int = 0
        self._count = 0

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch."""
        pred, target = classes(pred, target, self.ignore_index)
        self._correct = (pred == target).sum() + self._correct
        self._count += len(target)

    def compute(self) -> float:
        """Return the share of correct predictions."""
        return int(self._correct) / self._count if self._count else math.nan
