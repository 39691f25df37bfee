"""Figures of quality, exact over any number of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.metric.accuracy import Accuracy
    from flambe.metric.auc import AUC
    from flambe.metric.counts import F1, Precision, Recall
    from flambe.metric.loss import Loss
    from flambe.metric.metric import Metric
    from flambe.metric.perplexity import Perplexity

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "Loss",
    "Metric",
    "Perplexity",
    "Precision",
    "Recall",
]

# Loaded when they are used, so that what needs no torch does not import it.
__getattr__ = lazy_exports(
    __name__,
    {
        "Accuracy": "accuracy",
        "AUC": "auc",
        "F1": "counts",
        "Precision": "counts",
        "Recall": "counts",
        "Loss": "loss",
        "Metric": "metric",
        "Perplexity": "perplexity",
    },
)
