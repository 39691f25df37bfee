"""Training."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from flambe.compile import Component
from flambe.compile.state import random_state
from flambe.dataset import BaseDataset
from flambe.errors import ConfigError, RunError
from flambe.learn._forward import (
    Model,
    Precision,
    autocast,
    choose_device,
    determinism,
    move,
    predict,
    to_device,
    wants_target,
)
from flambe.learn._measure import measure, named
from flambe.logging import log
from flambe.metric import Metric
from flambe.sampler import BaseSampler
from flambe.sampler._collate import Batch

_logger = logging.getLogger(__name__)


class Trainer(Component):
    """Trains a model: each step is ``iter_per_step`` updates, then an evaluation.

    After each step the figures of it are logged: train loss, val loss, each metric on the
    validation data, learning rate. The last batch column is the target; see
    :class:`flambe.nn.Module` for how a model is called.

    While there is more to do ``model`` holds the last weights, and the best ones are kept aside.
    When the training has ended (``run`` returned False) it is the other way round: **the model
    holds the best weights**, the last ones are kept, and a larger ``max_steps`` continues from
    those. What builds on a training that a scheduler stopped is given the best weights too.

    The state holds all that the next update depends on, so that a training that was interrupted
    continues as if it had not been: weights, optimizer, schedulers, position in the data, random
    number generators. For that each step starts by setting the generators of the process (Python,
    NumPy, torch) to where the last step left them.

    Parameters
    ----------
    dataset
        Has ``train`` and ``val`` data.
    train_sampler, val_sampler
        Make batches of them.
    model
        What is trained; it is moved to the device in place.
    loss_fn
        From predictions and targets to a scalar: ``!torch.CrossEntropyLoss``.
    metric_fn
        The metric on the validation data that ranks, or several by name: then the first ranks.
    optimizer
        Built on the parameters of the model: ``params: !@ train[model].trainable_params``.
    scheduler
        Of the learning rate, stepped after each step: ``optimizer: !@ train[optimizer]``. A
        ``ReduceLROnPlateau`` is given the metric.
    iter_scheduler
        Of the learning rate, stepped after each update.
    device
        ``cpu``, ``cuda``, ``cuda:1``; by default the GPU, if there is one.
    max_steps
        How many steps.
    iter_per_step
        How many updates a step has.
    batches_per_iter
        How many batches an update has: their gradients are averaged.
    max_grad_norm
        Gradients are scaled so that their norm is at most this.
    max_grad_abs_val
        Gradients are cut to this absolute value.
    patience
        Stop after so many steps without a better metric.
    lower_is_better
        Whether a lower metric is better; by default the metric knows.
    extra_validation_metrics
        More metrics, by name; they do not rank.
    precision
        ``fp32``; or ``bf16`` or ``fp16``: the forward pass is done in it where it is safe
        (autocast), with scaled losses for ``fp16``.
    compile
        Whether the model is compiled by ``torch.compile``; what is saved is the plain model.
    deterministic
        Whether only deterministic algorithms are used: slower, and the same again on a GPU.
    seed
        For all generators, at the first step. The model was initialized before that.

    Raises
    ------
    RunError
        If the loss is not finite any more: it says at which update.
    """

    #: Made again where it is needed; where the data is, the sampler knows.
    _transient: ClassVar[tuple[str, ...]] = ("_prepared", "_call", "_stream")

    def __init__(
        self,
        dataset: BaseDataset,
        train_sampler: BaseSampler,
        val_sampler: BaseSampler,
        model: torch.nn.Module,
        loss_fn: Callable[..., torch.Tensor],
        *,
        metric_fn: Metric | Mapping[str, Metric],
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | ReduceLROnPlateau | None = None,
        iter_scheduler: LRScheduler | None = None,
        device: str | None = None,
        max_steps: int = 10,
        iter_per_step: int = 100,
        batches_per_iter: int = 1,
        max_grad_norm: float | None = None,
        max_grad_abs_val: float | None = None,
        patience: int | None = None,
        lower_is_better: bool | None = None,
        extra_validation_metrics: Mapping[str, Metric] | None = None,
        precision: Precision = "fp32",
        compile: bool = False,  # noqa: A002 (what it is called everywhere)
        deterministic: bool = False,
        seed: int | None = None,
    ) -> None:
        for name, value in (
            ("max_steps", max_steps),
            ("iter_per_step", iter_per_step),
            ("batches_per_iter", batches_per_iter),
            ("patience", patience),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.dataset = dataset
        self.train_sampler = train_sampler
        self.val_sampler = val_sampler
        self.model = model
        self.loss_fn = loss_fn
        self.metric_fn = metric_fn
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.iter_scheduler = iter_scheduler
        self.max_steps = max_steps
        self.iter_per_step = iter_per_step
        self.batches_per_iter = batches_per_iter
        self.max_grad_norm = max_grad_norm
        self.max_grad_abs_val = max_grad_abs_val
        self.patience = patience
        self.extra_validation_metrics = extra_validation_metrics or {}
        self.precision: Precision = precision
        self.compile = compile
        self.deterministic = deterministic
        self.seed = seed
        self._metrics = named(metric_fn) | dict(self.extra_validation_metrics)
        main = next(iter(self._metrics.values()))
        self.lower_is_better = main.lower_is_better if lower_is_better is None else lower_is_better
        self._check_scheduler()

        self._device = choose_device(device)
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "fp16")
        self._call: Model = model
        self._prepared = False
        self._with_target = wants_target(model)
        self._stream: Iterator[Batch] | None = None

        self.step = 0
        self.best_metric: float | None = None
        self.best_step = 0
        self.best_weights: dict[str, Any] | None = None
        self.last_weights: dict[str, Any] | None = None
        self.finished = False
        self.random_state: random_state.RandomState | None = None
        self.register_attrs(
            "step", "best_metric", "best_step", "best_weights", "last_weights", "finished",
            "random_state",
        )  # fmt: skip

    def _check_scheduler(self) -> None:
        expected_mode = "min" if self.lower_is_better else "max"
        if isinstance(self.scheduler, ReduceLROnPlateau) and self.scheduler.mode != expected_mode:
            name = next(iter(self._metrics))
            raise ConfigError(
                f"ReduceLROnPlateau has mode: {self.scheduler.mode}, but {name} is better when it "
                f"is {'lower' if self.lower_is_better else 'higher'}: give it mode: {expected_mode}"
            )

    # -- running --------------------------------------------------------------------------------

    def run(self) -> bool:
        """Do one step: train, evaluate, log."""
        if self._done():
            self._finish()
            return False
        self._continue()
        self._prepare()
        if self.random_state is not None:
            random_state.restore(self.random_state)
        elif self.seed is not None:
            random_state.seed(self.seed)
        with determinism(self.deterministic):
            rate = self.optimizer.param_groups[0]["lr"]
            train_loss = self._train()
            metrics, val_loss = self._evaluate()
        self.step += 1
        self._log({"train loss": train_loss, "val loss": val_loss}, metrics, float(rate))
        value = next(iter(metrics.values()))
        self._keep_best(value)
        self._schedule(value)
        self.random_state = random_state.capture()
        if self._done():
            self._finish()
        return not self.finished

    def metric(self) -> float | None:
        """Return the best metric so far, negated if lower is better."""
        if self.best_metric is None:
            return None
        return -self.best_metric if self.lower_is_better else self.best_metric

    def stopped(self) -> None:
        """Load the best weights into the model, as the end of the training does."""
        self._finish()

    def _done(self) -> bool:
        waited = self.patience is not None and self.step - self.best_step >= self.patience
        return self.step >= self.max_steps or waited

    def _prepare(self) -> None:
        """Bring all to the device, once; the model keeps its parameters, the optimizer too."""
        if self._prepared:
            return
        move(self.model, self.optimizer, self._device)
        if isinstance(self.loss_fn, torch.nn.Module):
            self.loss_fn.to(self._device)
        if self.compile:
            self._call = torch.compile(self.model)
        self._prepared = True

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return autocast(self._device, self.precision)

    def _loss(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        with self._autocast():
            pred, target = predict(self._call, to_device(batch, self._device), self._with_target)
            return self.loss_fn(pred, target)

    def _train(self) -> float:
        """Do the updates of a step, and return the mean loss."""
        self.model.train()
        if self._stream is None:
            self._stream = self.train_sampler.stream(self.dataset.split("train"))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        scaled, share = self.scaler.is_enabled(), self.batches_per_iter
        clips = self.max_grad_norm is not None or self.max_grad_abs_val is not None
        # Losses stay on the device: to look at one would be to wait for it.
        losses: list[torch.Tensor] = []
        for _ in range(self.iter_per_step):
            for batch in itertools.islice(self._stream, share):
                loss = self._loss(batch)
                losses.append(loss.detach())
                if share > 1:
                    loss = loss / share
                (self.scaler.scale(loss) if scaled else loss).backward()  # type: ignore[no-untyped-call]
            if clips:
                self._clip(parameters)
            if scaled:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.iter_scheduler is not None:
                self.iter_scheduler.step()
        return self._mean_loss(losses)

    def _clip(self, parameters: list[torch.nn.Parameter]) -> None:
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        if self.max_grad_abs_val is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.max_grad_abs_val)

    def _mean_loss(self, losses: list[torch.Tensor]) -> float:
        values = torch.stack(losses).double().cpu()
        finite = values.isfinite()
        if not finite.all():
            first = int((~finite).nonzero()[0])
            update = self.step * self.iter_per_step + first // self.batches_per_iter + 1
            hint = "" if self.precision == "fp32" else ", or precision: fp32"
            raise RunError(
                f"the train loss is {float(values[first])} at update {update} (step "
                f"{self.step + 1}, learning rate {self.optimizer.param_groups[0]['lr']}): try a "
                f"lower learning rate or max_grad_norm{hint}, and look for bad values in the data"
            )
        return float(values.mean())

    def _evaluate(self) -> tuple[dict[str, float], float]:
        return measure(
            self.model,
            self.val_sampler.sample(self.dataset.split("val")),
            self._metrics,
            call=self._call,
            with_target=self._with_target,
            device=self._device,
            cast=self._autocast,
            loss_fn=self.loss_fn,
        )

    def _log(self, losses: dict[str, float], metrics: dict[str, float], rate: float) -> None:
        figures = losses | {f"val {name}": value for name, value in metrics.items()}
        for tag, value in (figures | {"learning rate": rate}).items():
            log(tag, value, self.step)
        summary = ", ".join(f"{tag} {value:.4g}" for tag, value in figures.items())
        _logger.info("step %d of %d: %s", self.step, self.max_steps, summary)

    def _schedule(self, value: float) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(value)
        elif self.scheduler is not None:
            self.scheduler.step()

    # -- last and best --------------------------------------------------------------------------

    def _keep_best(self, value: float) -> None:
        if math.isnan(value):
            _logger.warning("step %d: the metric is not defined (NaN)", self.step)
            return
        best = self.best_metric
        better = best is None or (value < best if self.lower_is_better else value > best)
        if better:
            self.best_metric, self.best_step = value, self.step
            self.best_weights = self._weights()

    def _weights(self) -> dict[str, Any]:
        """Return a copy of the weights of the model, on the CPU."""
        return {
            name: value.detach().to("cpu", copy=True)
            if isinstance(value, torch.Tensor)
            else copy.deepcopy(value)
            for name, value in self.model.state_dict().items()
        }

    def _finish(self) -> None:
        if self.finished:
            return
        if self.best_weights is not None:
            self.last_weights, best = self._weights(), self.best_weights
            self.model.load_state_dict(best)
            self.best_weights = None
        self.finished = True

    def _continue(self) -> None:
        """Go on after an end, if there is more to do now."""
        if self.finished:
            if self.last_weights is not None:
                self.best_weights, last = self._weights(), self.last_weights
                self.model.load_state_dict(last)
                self.last_weights = None
            self.finished = False

    def _load_state(self, values: dict[str, object]) -> dict[str, object]:
        # The position in the data comes from the sampler's state.
        self._stream = None
        return values
