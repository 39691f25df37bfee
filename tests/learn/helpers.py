"""A small training on real data, for the tests of this room."""

from __future__ import annotations

import tempfile
from typing import Any

import torch

from flambe.compile import Component
from flambe.compile.state.encoding import Encoder
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.state_file import read_state, write_state
from flambe.dataset import SklearnDataset
from flambe.learn import Trainer
from flambe.metric import Accuracy
from flambe.nn import Classifier, MLPEncoder
from flambe.sampler import BaseSampler


def trainer(lr: float = 0.01, schedule: bool = True, **options: Any) -> Trainer:
    """Build a trainer for the digits, as a configuration would."""
    dataset = SklearnDataset("digits")
    model = options.pop("model", None) or Classifier(
        MLPEncoder(dataset.n_features, 32, n_layers=2, dropout=0.2), dataset.n_classes
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5) if schedule else None
    # 1077 rows are 17 batches: 7 updates end in the middle of an epoch.
    settings: dict[str, Any] = {
        "metric_fn": Accuracy(),
        "scheduler": scheduler,
        "device": "cpu",
        "max_steps": 6,
        "iter_per_step": 7,
    }
    return Trainer(
        dataset,
        BaseSampler(64),
        BaseSampler(256, shuffle=False),
        model,
        torch.nn.CrossEntropyLoss(),
        optimizer=optimizer,
        **(settings | options),
    )


def through_file(component: Component) -> dict[str, dict[str, Any]]:
    """Return the state of a component as it is read back from a file."""
    read = {}
    for path, values in component.get_state().items():
        with tempfile.TemporaryDirectory() as folder:
            write_state(
                FileWriter(folder), {n: Encoder("it").encode(v, n) for n, v in values.items()}
            )
            read[path] = read_state(folder, lambda name, held: held)
    return read
