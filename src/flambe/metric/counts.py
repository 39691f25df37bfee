"""Metrics that come from counting hits and misses of each class."""

from __future__ import annotations

import math
from typing import Literal

import torch

from flambe.metric.metric import Metric, classes

Average = Literal["binary", "micro", "macro", "weighted"]


class _Counts(Metric):
    """Keeps, for each class, how often it is hit, predicted and true.

    With TP the rows that are predicted to be of a class and are, FP those that are not, and FN
    those of the class that are predicted to be of another one, each subclass is a figure of TP, FP
    and FN; where that divides by 0, it is 0.

    Parameters
    ----------
    average
        ``macro``: the mean of the figures of the classes that are predicted or true; ``weighted``:
        their mean weighted by how often each is true, TP + FN; ``micro``: the figure of the sums
        of TP, FP and FN over all classes; ``binary``: the figure of one class. They are
        scikit-learn's averages, whose default is ``binary``.
    positive
        The one class of ``binary``.
    ignore_index
        Rows of that true class (padding, say) do not count.
    """

    def __init__(
        self, average: Average = "macro", positive: int = 1, ignore_index: int | None = None
    ) -> None:
        self.average = average
        self.positive = positive
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all that was given."""
        # The rows: hits, predicted, true.
        self._counts = torch.zeros(3, 0, dtype=torch.int64)

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch."""
        width = pred.shape[-1] if pred.dim() == target.dim() + 1 else 0
        pred, target = classes(pred, target, self.ignore_index)
        hits = target[pred == target]
        width = max(width, self._counts.shape[1])
        counted = [torch.bincount(values, minlength=width) for values in (hits, pred, target)]
        width = max(map(len, counted))
        total = torch.zeros(3, width, dtype=torch.int64, device=pred.device)
        for row, values in enumerate(counted):
            total[row, : len(values)] = values
        total[:, : self._counts.shape[1]] += self._counts.to(total.device)
        self._counts = total

    def compute(self) -> float:
        """Return the figure, by the average that was asked for."""
        counts = self._counts.double().cpu()
        if not counts[2].sum():
            return math.nan
        if self.average == "binary":
            own = counts[:, self.positive : self.positive + 1]
            return float(self._figure(own)) if own.numel() else 0.0
        if self.average == "micro":
            return float(self._figure(counts.sum(1, keepdim=True)))
        present = counts[:, counts[1] + counts[2] > 0]
        figures = self._figure(present)
        if self.average == "weighted":
            return float((figures * present[2]).sum() / present[2].sum())
        return float(figures.mean())

    def _figure(self, counts: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Divide; what is not defined counts as 0, as in scikit-learn."""
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1), 0.0)


class Precision(_Counts):
    """The share of what is predicted to be of a class that is: TP / (TP + FP).

    Parameters
    ----------
    average, positive, ignore_index
        As in :class:`F1`.
    """

    def _figure(self, counts: torch.Tensor) -> torch.Tensor:
        return _ratio(counts[0], counts[1])


class Recall(_Counts):
    """The share of what is of a class that is predicted to be: TP / (TP + FN).

    Parameters
    ----------
    average, positive, ignore_index
        As in :class:`F1`.
    """

    def _figure(self, counts: torch.Tensor) -> torch.Tensor:
        return _ratio(counts[0], counts[2])


class F1(_Counts):
    """The harmonic mean of precision and recall of a class: 2 TP / (2 TP + FP + FN).

    See van Rijsbergen, Information Retrieval, 1979. TP are the rows that are predicted to be of the
    class and are, FP those that are not, FN those of the class that are predicted to be of another
    one; where the figure divides by 0, it is 0.

    Parameters
    ----------
    average
        ``macro`` (the default): the mean over the classes that are predicted or true;
        ``weighted``: the same, by how often each is true; ``micro``: of all classes together;
        ``binary``: of one class.
    positive
        That class.
    ignore_index
        Rows of that true class (padding, say) do not count.
    """

    def _figure(self, counts: torch.Tensor) -> torch.Tensor:
        return _ratio(2 * counts[0], counts[1] + counts[2])
