from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flambe.learn.trainer
from flambe.compile import load, save
from flambe.compile.state.component_state import same
from flambe.compile.yaml import load_standalone
from flambe.errors import ConfigError, RunError
from flambe.learn import Evaluator, Trainer
from flambe.metric import F1, Accuracy, Loss
from flambe.nn import MLPEncoder, Module
from tests.learn.helpers import through_file, trainer


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def _figures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int]]:
    logged: list[tuple[str, float, int]] = []
    monkeypatch.setattr(
        flambe.learn.trainer, "log", lambda tag, value, step: logged.append((tag, value, step))
    )
    return logged


def test_learns_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = _figures(monkeypatch)
    ours = trainer(max_steps=4, iter_per_step=60, extra_validation_metrics={"f1": F1()})
    assert [ours.run() for _ in range(4)] == [True, True, True, False]
    best = ours.metric()
    assert best is not None
    assert best >= 0.94
    tags = {tag for tag, _, _ in logged}
    assert tags == {"train loss", "val loss", "val accuracy", "val f1", "learning rate"}
    assert [step for tag, _, step in logged if tag == "val loss"] == [1, 2, 3, 4]
    rates = [value for tag, value, _ in logged if tag == "learning rate"]
    assert rates == [0.01, 0.01, 0.005, 0.005]
    losses = [value for tag, value, _ in logged if tag == "train loss"]
    assert losses[-1] < losses[0] / 3

    # The model holds the best weights: measuring it again gives the best metric.
    measured = Evaluator(ours.dataset, ours.model, Accuracy(), eval_data="val", device="cpu")
    assert measured.run() is False
    assert measured.metric() == best
    assert ours.run() is False


@pytest.mark.parametrize("options", [{}, {"precision": "fp16"}, {"batches_per_iter": 2}])
def test_resume_is_exact(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    logged = _figures(monkeypatch)
    options = {"max_grad_norm": 1.0, **options}
    torch.manual_seed(1)
    straight = trainer(**options)
    for _ in range(6):
        straight.run()
    uninterrupted = list(logged)
    logged.clear()

    torch.manual_seed(1)
    first = trainer(**options)
    for _ in range(3):
        first.run()
    state = through_file(first)
    # Another process: other random numbers, other initial weights, another order of the data.
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    second = trainer(**options)
    assert not same(second.get_state()["model"], state["model"])
    second.load_state(state)
    for _ in range(3):
        second.run()
    assert logged == uninterrupted
    assert same(through_file(second), through_file(straight))
    assert second.run() is False


def test_random_numbers_of_others_do_not_matter() -> None:
    torch.manual_seed(1)
    one = trainer()
    for _ in range(3):
        one.run()
    torch.manual_seed(1)
    two = trainer()
    for _ in range(3):
        two.run()
        torch.rand(7)
    assert same(one.get_state(), two.get_state())


def test_state_in_the_middle_is_last_and_at_the_end_best() -> None:
    ours = trainer(lr=0.05, max_steps=5, schedule=False)
    metrics = []
    while True:
        more = ours.run()
        metrics.append(ours.metric())
        if not more:
            break
        last = {k: v.clone() for k, v in ours.model.state_dict().items()}
    assert ours.last_weights is not None
    assert ours.best_weights is None
    del last
    # More steps go on from the last weights, as if there had been no end.
    state = through_file(ours)
    longer = trainer(lr=0.05, max_steps=7, schedule=False)
    longer.load_state(state)
    assert longer.run() is True
    torch.manual_seed(0)
    straight = trainer(lr=0.05, max_steps=7, schedule=False)
    for _ in range(6):
        straight.run()
    assert same(longer.get_state(), straight.get_state())


def test_a_training_that_is_stopped_settles_on_its_best() -> None:
    ours = trainer(max_steps=50)
    for _ in range(3):
        ours.run()
    best = {k: v.clone() for k, v in (ours.best_weights or {}).items()}
    ours.stopped()
    assert same(dict(ours.model.state_dict()), best)


def test_patience_stops() -> None:
    ours = trainer(lr=0.0, max_steps=50, patience=3, schedule=False)
    steps = 1
    while ours.run():
        steps += 1
    assert (steps, ours.best_step) == (4, 1)


def test_lower_is_better_is_negated() -> None:
    ours = trainer(metric_fn=Loss(torch.nn.CrossEntropyLoss()), max_steps=2)
    while ours.run():
        pass
    best = ours.metric()
    assert best is not None
    assert best < 0
    measured = Evaluator(
        ours.dataset,
        ours.model,
        Loss(torch.nn.CrossEntropyLoss()),
        eval_data=["val", "test"],
        device="cpu",
    )
    measured.run()
    assert measured.metric() == best
    assert set(measured.figures) == {"val", "test"}


def test_bad_loss_names_the_update() -> None:
    ours = trainer(schedule=False)
    ours.run()
    assert isinstance(ours.model, Module)
    with torch.no_grad():
        ours.model.trainable_params[0].fill_(math.nan)
    with pytest.raises(RunError, match=r"the train loss is nan at update 8 \(step 2, learning"):
        ours.run()


def test_gradient_accumulation_equals_a_large_batch() -> None:
    def weights(batch: int, share: int) -> torch.Tensor:
        torch.manual_seed(3)
        ours = trainer(
            model=torch.nn.Linear(64, 10), batches_per_iter=share, max_steps=2, schedule=False
        )
        ours.train_sampler.batch_size, ours.train_sampler.seed = batch, 5
        ours.train_sampler.drop_last = True
        ours.run()
        weight: torch.Tensor = ours.model.state_dict()["weight"]
        return weight

    assert torch.allclose(weights(64, 1), weights(32, 2), atol=1e-5)


def test_clipping_bounds_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    ours = trainer(max_grad_norm=0.01, schedule=False, iter_per_step=3)
    step = ours.optimizer.step

    def measured(*args: Any) -> Any:
        grads = [p.grad for p in ours.model.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))
        return step(*args)

    monkeypatch.setattr(ours.optimizer, "step", measured)
    ours.run()
    assert len(norms) == 3
    assert max(norms) <= 0.0101


def test_plateau_is_given_the_metric() -> None:
    ours = trainer(lr=1e-6, schedule=False)
    with pytest.raises(ConfigError, match="give it mode: max"):
        trainer(scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau(ours.optimizer))
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        ours.optimizer, mode="max", patience=0, factor=0.1
    )
    ours.scheduler = scheduler
    for _ in range(3):
        ours.run()
    assert scheduler.best == ours.metric()
    assert ours.optimizer.param_groups[0]["lr"] < 1e-6


def test_iter_scheduler_steps_at_each_update() -> None:
    ours = trainer(schedule=False)
    ours.iter_scheduler = torch.optim.lr_scheduler.LambdaLR(ours.optimizer, lambda n: 1 / (1 + n))
    ours.run()
    assert ours.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 8)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision(precision: str) -> None:
    seen = []

    class Watching(torch.nn.Linear):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            pred = super().forward(data)
            seen.append(pred.dtype)
            return pred

    ours = trainer(model=Watching(64, 10), precision=precision, iter_per_step=40)
    ours.run()
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert (ours.metric() or 0) > 0.8
    assert ours.model.state_dict()["weight"].dtype == torch.float32


@pytest.mark.filterwarnings("default")
def test_compiled_state_is_that_of_the_plain_model(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compile_ = torch.compile

    def quickly(model: torch.nn.Module) -> Any:
        calls.append(model)
        return compile_(model, backend="eager")

    monkeypatch.setattr(torch, "compile", quickly)
    torch.manual_seed(1)
    plain = trainer()
    plain.run()
    torch.manual_seed(1)
    ours = trainer(compile=True)
    ours.run()
    assert calls == [ours.model]
    assert same(ours.get_state(), plain.get_state())


def test_deterministic_is_put_back() -> None:
    seen = []

    class Watching(torch.nn.Linear):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().forward(data)

    trainer(model=Watching(64, 10), deterministic=True).run()
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_seed_decides_the_training() -> None:
    def weights(seed: int, before: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(4)
        ours = trainer(seed=seed)
        torch.manual_seed(before)
        ours.run()
        return dict(ours.model.state_dict())

    assert same(weights(1, 10), weights(1, 11))
    assert not same(weights(1, 10), weights(2, 10))


def test_model_that_takes_the_target() -> None:
    class Masked(Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, data: torch.Tensor, target: torch.Tensor | None = None) -> Any:
            pred = self.layer(data)
            if target is None:
                return pred
            kept = target != 3
            return pred[kept], target[kept]

    ours = trainer(model=Masked(), iter_per_step=60)
    ours.run()
    assert (ours.metric() or 0) > 0.9
    features = torch.stack([row[0] for row in ours.dataset.split("val")])
    labels = torch.stack([row[1] for row in ours.dataset.split("val")])
    # The class that is left out is not learned, and does not count.
    hits = ours.model(features).argmax(1) == labels
    assert float(hits[labels == 3].float().mean()) < 0.5
    assert float(hits[labels != 3].float().mean()) == pytest.approx(ours.metric())


def test_optimizer_of_another_model_is_told() -> None:
    class Elsewhere(torch.nn.Linear):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            return super().to("meta")

    ours = trainer(model=Elsewhere(64, 10), schedule=False)
    ours._device = torch.device("meta")
    other = torch.nn.Linear(64, 10)
    ours.optimizer = torch.optim.Adam(other.parameters())
    with pytest.raises(RunError, match=r"params: !@ train\[model\]\.trainable_params"):
        ours.run()


@pytest.mark.parametrize("name", ["max_steps", "iter_per_step", "batches_per_iter", "patience"])
def test_counts_are_positive(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        trainer(**options)


_CONFIG = """
names:
  dataset: !SklearnDataset {name: iris}
  train: !Trainer
    dataset: !@ dataset
    train_sampler: !BaseSampler {batch_size: 16}
    val_sampler: !BaseSampler {shuffle: false}
    model: !Classifier
      encoder: !MLPEncoder
        input_size: !@ dataset.n_features
        output_size: 8
      n_classes: !@ dataset.n_classes
    loss_fn: !torch.CrossEntropyLoss
    metric_fn: !Accuracy
    optimizer: !torch.SGD
      params: !@ train[model].trainable_params
      lr: 0.1
    scheduler: !torch.StepLR
      optimizer: !@ train[optimizer]
      step_size: 1
    max_steps: 4
    iter_per_step: 5
object: !@ train
"""


def test_saved_and_loaded_as_folders(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(_CONFIG)
    ours: Trainer = load_standalone(str(config))
    ours.run()
    ours.run()
    save(ours, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert same(again.get_state(), ours.get_state())
    while ours.run() or again.run():
        pass
    assert same(again.get_state(), ours.get_state())
    encoder = load(tmp_path / "saved" / "model" / "encoder")
    assert isinstance(encoder, MLPEncoder)
