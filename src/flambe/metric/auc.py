"""The area under the receiver operating characteristic."""

from __future__ import annotations

import math

import torch

from flambe.metric.metric import Metric


class AUC(Metric):
    """The probability that a positive example is scored higher than a negative one.

    Ties count half (Hanley and McNeil, 1982). With more than two classes it is the mean over the
    classes, each against the rest (``multi_class="ovr", average="macro"`` in scikit-learn); one
    that is never or always true is left out. All predictions are kept until :meth:`reset`.

    Parameters
    ----------
    normalize
        With more than two classes scores are made comparable by a softmax first. That leaves
        logarithms of probabilities and logits right; turn it off for probabilities.

    Notes
    -----
    Predictions are scores of class 1, shape (n,) or (n, 1), or of all classes, shape (n, classes);
    targets have shape (n,).
    """

    def __init__(self, normalize: bool = True) -> None:
        self.normalize = normalize
        self.reset()

    def reset(self) -> None:
        """Forget all that was given."""
        self._scores: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch."""
        pred = pred.detach().double()
        if pred.dim() == 2 and pred.shape[1] == 1:
            pred = pred.squeeze(1)
        elif pred.dim() == 2 and self.normalize:
            # With two classes, too: only the difference of the two scores ranks.
            pred = pred.log_softmax(-1) if pred.shape[1] == 2 else pred.softmax(-1)
        self._scores.append(pred)
        self._targets.append(target.detach().reshape(len(pred)))

    def compute(self) -> float:
        """Return the area; NaN if there are not both positive and negative examples."""
        if not self._scores:
            return math.nan
        scores, targets = torch.cat(self._scores).cpu(), torch.cat(self._targets).cpu()
        if scores.dim() == 1:
            return _area(scores, targets > 0)
        if scores.shape[1] == 2:
            return _area(scores[:, 1], targets == 1)
        areas = [_area(scores[:, c], targets == c) for c in range(scores.shape[1])]
        defined = [area for area in areas if not math.isnan(area)]
        return sum(defined) / len(defined) if defined else math.nan


def _area(scores: torch.Tensor, positive: torch.Tensor) -> float:
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return math.nan
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    # Equal scores share the mean of their ranks, which start at 1.
    ranks = (sizes.cumsum(0).double() - (sizes - 1) / 2)[group]
    above = float(ranks[positive].sum()) - n_positive * (n_positive + 1) / 2
    return above / (n_positive * n_negative)
