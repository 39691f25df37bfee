"""Perplexity."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from flambe.metric.metric import Metric


class Perplexity(Metric):
    """e to the mean cross entropy of all tokens; smaller is better.

    Parameters
    ----------
    ignore_index
        Targets that do not count: the padding.

    Notes
    -----
    Predictions have shape (..., classes) and targets (...). They may be logits or logarithms of
    probabilities, which a softmax leaves as they are.
    """

    lower_is_better: ClassVar[bool] = True

    def __init__(self, ignore_index: int = -100) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all that was given."""
        self._total: torch.Tensor | float = 0.0
        self._count: torch.Tensor | int = 0

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch."""
        target = target.reshape(-1)
        logits = pred.detach().reshape(len(target), -1)
        total = torch.nn.functional.cross_entropy(
            logits, target, ignore_index=self.ignore_index, reduction="sum"
        )
        self._total = total.double() + self._total
        self._count = (target != self.ignore_index).sum() + self._count

    def compute(self) -> float:
        """Return the perplexity; infinity where it is too large for a float."""
        count = int(self._count)
        if not count:
            return math.nan
        mean = float(self._total) / count
        return math.exp(mean) if mean < 700 else math.inf
