"""Evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from flambe.compile import Component
from flambe.dataset import BaseDataset
from flambe.learn._forward import choose_device, wants_target
from flambe.learn._measure import measure, named
from flambe.logging import log
from flambe.metric import Metric
from flambe.sampler import BaseSampler


class Evaluator(Component):
    """Measures a model, in one step.

    Parameters
    ----------
    dataset
        Has the data.
    model
        What is measured: ``!@ train[model]``, which holds the best weights after its training.
    metric_fn
        The metric, or several by name: then the first is the figure that ranks.
    eval_sampler
        Makes batches of the data; by default of 256 rows, in order.
    eval_data
        The split, or several: then the first is the one that ranks.
    device
        ``cpu``, ``cuda``, ``cuda:1``; by default the GPU, if there is one.

    Attributes
    ----------
    figures
        From split to name to figure, after the step; a part of the state.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        model: torch.nn.Module,
        metric_fn: Metric | Mapping[str, Metric],
        eval_sampler: BaseSampler | None = None,
        *,
        eval_data: str | Sequence[str] = "test",
        device: str | None = None,
    ) -> None:
        self.dataset = dataset
        self.model = model
        self.metric_fn = metric_fn
        if eval_sampler is None:
            eval_sampler = BaseSampler(batch_size=256, shuffle=False, seed=0)
        self.eval_sampler = eval_sampler
        self.eval_data = [eval_data] if isinstance(eval_data, str) else list(eval_data)
        if not self.eval_data:
            raise ValueError("eval_data is empty: give at least one split")
        self._device = choose_device(device)
        self._metrics = named(metric_fn)
        self.figures: dict[str, dict[str, float]] = {}
        self.register_attrs("figures")

    def run(self) -> bool:
        """Measure the model on each split, and log the figures."""
        self.model.to(self._device)
        for split in self.eval_data:
            self.figures[split], _ = measure(
                self.model,
                self.eval_sampler.sample(self.dataset.split(split)),
                self._metrics,
                call=self.model,
                with_target=wants_target(self.model),
                device=self._device,
            )
            for name, value in self.figures[split].items():
                log(f"{split} {name}", value)
        return False

    def metric(self) -> float | None:
        """Return the first metric on the first split, negated if lower is better."""
        if self.eval_data[0] not in self.figures:
            return None
        name, metric = next(iter(self._metrics.items()))
        return metric.score(self.figures[self.eval_data[0]][name])
