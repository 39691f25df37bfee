"""A loss as a metric."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch

from flambe.metric.metric import Metric


class Loss(Metric):
    """The mean of a loss over all examples.

    Smaller is better: figures are logged as they are, and ``metric()`` of what uses it is negated.

    Parameters
    ----------
    loss_fn
        One of torch's losses: ``!torch.CrossEntropyLoss``. With class weights or an
        ``ignore_index`` the mean is over the weights of all examples, as within a batch.
    """

    lower_is_better: ClassVar[bool] = True

    def __init__(self, loss_fn: torch.nn.Module) -> None:
        self.loss_fn = loss_fn
        self._summed = copy.deepcopy(loss_fn)
        if hasattr(self._summed, "reduction"):
            setattr(self._summed, "reduction", "sum")  # noqa: B010 (declared by subclasses)
        self.reset()

    def reset(self) -> None:
        """Forget all that was given."""
        self._total: torch.Tensor | float = 0.0
        self._weight: torch.Tensor | float = 0.0

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch."""
        self._summed.to(pred.device)
        with torch.no_grad():
            value = self._summed(pred, target).double()
        weight = self._weight_of(target)
        if not hasattr(self._summed, "reduction"):
            value = value * len(target)
            weight = torch.tensor(float(len(target)))
        self._total = value + self._total
        self._weight = weight.to(value.device) + self._weight

    def _weight_of(self, target: torch.Tensor) -> torch.Tensor:
        """Return what the sum over a batch is divided by to get its mean."""
        per_class = isinstance(self._summed, torch.nn.CrossEntropyLoss | torch.nn.NLLLoss)
        if not per_class:
            return torch.tensor(float(target.numel()))
        if target.is_floating_point():  # probabilities of the classes
            return torch.tensor(target.numel() / target.shape[1 if target.dim() > 1 else 0])
        kept = target[target != self._summed.ignore_index]
        weights = self._summed.weight
        if isinstance(weights, torch.Tensor):
            return weights[kept].sum().double()
        return torch.tensor(float(kept.numel()))

    def compute(self) -> float:
        """Return the mean."""
        weight = float(self._weight)
        return float(self._total) / weight if weight else math.nan
