"""Figures of a model on a split."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from flambe.learn._forward import Model, predict, to_device
from flambe.metric import Metric


def named(metric_fn: Metric | Mapping[str, Metric]) -> dict[str, Metric]:
    """Return metrics by name; the first is the figure that ranks."""
    metrics = {metric_fn.name: metric_fn} if isinstance(metric_fn, Metric) else dict(metric_fn)
    if not metrics:
        raise ValueError("metric_fn is empty: give at least one metric")
    return metrics


def measure(
    model: torch.nn.Module,
    batches: Iterable[Sequence[torch.Tensor]],
    metrics: Mapping[str, Metric],
    *,
    call: Model,
    with_target: bool,
    device: torch.device,
    cast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    loss_fn: Callable[..., torch.Tensor] | None = None,
) -> tuple[dict[str, float], float]:
    """Return the metrics over batches, and the mean loss of an example.

    The model is left as it was: in training or in evaluation mode.
    """
    training = model.training
    model.eval()
    for metric in metrics.values():
        metric.reset()
    losses: list[torch.Tensor] = []
    sizes: list[int] = []
    try:
        # Not inference_mode: what a model keeps from here may be used in training.
        with torch.no_grad():
            for batch in batches:
                with cast():
                    pred, target = predict(call, to_device(batch, device), with_target)
                    if loss_fn is not None:
                        losses.append(loss_fn(pred, target))
                        sizes.append(len(target))
                if pred.dtype in (torch.bfloat16, torch.float16):
                    pred = pred.float()
                for metric in metrics.values():
                    metric.update(pred, target)
    finally:
        model.train(training)
    values = {name: metric.compute() for name, metric in metrics.items()}
    for metric in metrics.values():
        metric.reset()
    if not losses:
        return values, math.nan
    weights = torch.tensor(sizes, dtype=torch.float64)
    total = torch.stack(losses).double().cpu() @ weights
    return values, float(total / weights.sum())
