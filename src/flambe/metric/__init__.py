"""Figures of quality, exact over any number of batches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
_MODULES = {
    "Accuracy": "accuracy",
    "AUC": "auc",
    "F1": "counts",
    "Precision": "counts",
    "Recall": "counts",
    "Loss": "loss",
    "Metric": "metric",
    "Perplexity": "perplexity",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
