"""An interrupted and resumed run equals an undisturbed one: every state, figure and random number.

Each variant of a run is interrupted after a checkpoint, and the run is resumed, until it is done. In
between the random numbers of the process are others, as they are in another process.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from flambe.compile.registry import CLASSES
from flambe.compile.state.component_state import same
from flambe.compile.state.state_file import read_state
from flambe.errors import Interrupted
from flambe.experiment.executors.inline import InlineExecutor
from flambe.progress import Status, read_lines
from tests.experiment.lab import (
    Lab,
    Outcome,
    Watcher,
    command,
    environment,
    flambe,
    kill_all,
    until,
)

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"


class Interrupting(InlineExecutor):
    """Interrupts each variant once, after a checkpoint in its middle."""

    interrupted: ClassVar[set[str]] = set()
    at = 2

    def save_checkpoint(self, running: Any, folder: Path) -> None:
        super().save_checkpoint(running, folder)
        known = running.variant.id
        if running.step_count == self.at and not running.done and known not in self.interrupted:
            self.interrupted.add(known)
            random.seed(99)
            np.random.seed(99)
            torch.manual_seed(99)
            raise KeyboardInterrupt


def results(outcome: Outcome) -> dict[str, Any]:
    """Return all that a run came to, by the names of its variants."""
    found: dict[str, Any] = {}
    for variant in outcome.variants:
        assert variant.status in (Status.FINISHED, Status.REUSED, Status.MASKED), variant.error
        folder = outcome.folder.variant(variant.stage, variant.name)
        figures = {
            (entry["tag"], entry["step"]): entry["value"]
            for entry in read_lines(folder / "metrics.jsonl")
        }
        states = {}
        for place, _, files in os.walk(folder / "checkpoint"):
            if "state.pt" in files:  # what is pickled is compared by what it predicts
                states[os.path.relpath(place, folder)] = read_state(place, lambda name, held: name)
        known = (variant.metric, variant.best, variant.step)
        found[f"{variant.stage}/{variant.name}"] = {
            "known": known,
            "figures": figures,
            "states": states,
        }
    return found


def compare(lab: Lab, text: str) -> set[str]:
    """Run an experiment undisturbed, and interrupted; return the variants that were interrupted."""
    lab.config.write_text(text, encoding="utf-8")
    undisturbed = results(lab.run().fine())
    Interrupting.interrupted = set()
    outcome = lab.run(executor=Interrupting, force=True)
    for _ in range(200):
        if outcome.error is None:
            break
        assert isinstance(outcome.error, Interrupted), outcome.error
        outcome = lab.run(executor=Interrupting, resume=True)
    resumed = results(outcome.fine())
    assert list(resumed) == list(undisturbed)
    unequal = [
        f"{name}: {what}: {difference(undisturbed[name][what], resumed[name][what])}"
        for name in undisturbed
        for what in undisturbed[name]
        if not same(undisturbed[name][what], resumed[name][what])
    ]
    assert not unequal, "\n".join(unequal)
    return Interrupting.interrupted


def difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        return ", ".join(
            f"{key}: {difference(one.get(key), other.get(key))}"
            for key in one.keys() | other.keys()
            if not same(one.get(key), other.get(key))
        )
    return f"{one} is not {other}"[:200]


HEAD = """
!Experiment
name: trial
save_path: {out}
pipeline:
  dataset: !SklearnDataset {{name: iris}}
"""
TRAIN = """
  train: !Trainer
    dataset: !@ dataset
    train_sampler: {sampler}
    val_sampler: !BaseSampler {{shuffle: false}}
    model: !Classifier
      encoder: !MLPEncoder
        input_size: !@ dataset.n_features
        output_size: 8
        n_layers: 2
        dropout: 0.3
      n_classes: !@ dataset.n_classes
    loss_fn: !torch.CrossEntropyLoss
    metric_fn: {metric}
    optimizer: {optimizer}
    max_steps: 5
    iter_per_step: 3
    device: cpu
{more}
  evaluate: !Evaluator
    dataset: !@ dataset
    model: !@ train[model]
    metric_fn: {{a: !Accuracy , f: !F1 }}
    eval_data: [test, val]
    device: cpu
"""
PARAMS = "params: !@ 'train[model].trainable_params'"
OPTIMIZER = "optimizer: !@ 'train[optimizer]'"
DEFAULTS = {
    "sampler": "!BaseSampler {batch_size: 16}",
    "metric": "!Accuracy",
    "optimizer": f"!torch.SGD {{{PARAMS}, lr: 0.1, momentum: 0.9}}",
    "more": "",
}


def training(lab: Lab, more: str = "", **parts: str) -> str:
    parts = {**DEFAULTS, **parts, "more": "".join(f"    {line}\n" for line in more.splitlines())}
    return HEAD.format(out=lab.root / "out") + TRAIN.format(**parts)


def options(*values: str) -> str:
    return "!g [" + " , ".join(values) + " ]"


OPTIMIZERS = {
    "SGD": "lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01",
    **dict.fromkeys(
        (
            *("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop"),
            *("Rprop", "ASGD"),
        ),
        "lr: 0.01",
    ),
}
SCHEDULERS = {
    "StepLR": "step_size: 2",
    "MultiStepLR": "milestones: [1, 3]",
    "ConstantLR": "total_iters: 3",
    "LinearLR": "total_iters: 3",
    "ExponentialLR": "gamma: 0.7",
    "CosineAnnealingLR": "T_max: 4",
    "CosineAnnealingWarmRestarts": "T_0: 2",
    "PolynomialLR": "total_iters: 4",
    "CyclicLR": "base_lr: 0.01, max_lr: 0.1, step_size_up: 2",
    "OneCycleLR": "max_lr: 0.1, total_steps: 30",
    "ReduceLROnPlateau": "mode: max, patience: 0",
}
NESTED = [
    f"!torch.SequentialLR {{{OPTIMIZER}, milestones: [2], schedulers: [!torch.ConstantLR "
    f"{{{OPTIMIZER}, total_iters: 2}}, !torch.ExponentialLR {{{OPTIMIZER}, gamma: 0.5}}]}}",
    f"!torch.ChainedScheduler {{{OPTIMIZER}, schedulers: [!torch.StepLR {{{OPTIMIZER}, step_size: 1}}, "
    f"!torch.LinearLR {{{OPTIMIZER}, total_iters: 4}}]}}",
]


def test_optimizers(lab: Lab) -> None:
    each = [f"!torch.{name} {{{PARAMS}, {args}}}" for name, args in OPTIMIZERS.items()]
    assert len(compare(lab, training(lab, optimizer=options(*each)))) == len(each)


def test_schedulers_of_the_learning_rate(lab: Lab) -> None:
    each = [f"!torch.{name} {{{OPTIMIZER}, {args}}}" for name, args in SCHEDULERS.items()]
    more = f"scheduler: {options(*each, *NESTED)}"
    assert len(compare(lab, training(lab, more))) == len(each) + 2


def test_schedulers_of_each_update(lab: Lab) -> None:
    each = [
        f"!torch.{name} {{{OPTIMIZER}, {args}}}"
        for name, args in SCHEDULERS.items()
        if name != "ReduceLROnPlateau"
    ]
    assert compare(lab, training(lab, f"iter_scheduler: {options(*each)}"))


def test_samplers(lab: Lab) -> None:
    each = [
        f"!BaseSampler {{batch_size: 16, {more}}}"
        for more in ("shuffle: false", "drop_last: true", "seed: 3", "bucket_by_length: true")
    ]
    assert len(compare(lab, training(lab, sampler=options(*each)))) == 4


@pytest.mark.parametrize(
    "more",
    [
        "patience: 2\nmax_grad_norm: 0.5",
        "batches_per_iter: 3\nmax_grad_abs_val: 0.1",
        "precision: !g [bf16, fp16]",
        "seed: 1\ndeterministic: true",
        "extra_validation_metrics: {f: !F1 , l: !Loss {loss_fn: !torch.CrossEntropyLoss }}",
    ],
)
def test_options_of_the_trainer(lab: Lab, more: str) -> None:
    assert compare(lab, training(lab, more))


def test_metrics(lab: Lab) -> None:
    metrics = [
        "!Loss {loss_fn: !torch.CrossEntropyLoss }",
        "!Perplexity",
        "!F1",
        "!AUC",
        "!Precision",
    ]
    assert compare(lab, training(lab, metric=options(*metrics)))


TEXT = """
!Experiment
name: trial
save_path: {out}
pipeline:
  dataset: !TabularDataset
    train: [[a b c, x], [b c, y], [c d d e, x], [a, y], [e e, x], [d a, y], [b, y], [c a b e, x]]
    val: [[a b, x], [c, y], [d e, x]]
    test: [[e, x], [c b a, y]]
    named_columns: [text, label]
    transform: {{text: !TextField , label: !LabelField }}
  model: !TextClassifier
    embedder: !Embedder
      embedding: !Embeddings
        num_embeddings: !@ dataset[transform][text].vocab_size
        embedding_dim: 8
      encoder: !g
        - !RNNEncoder {{input_size: 8, hidden_size: 8, rnn_type: lstm, n_layers: 2, dropout: 0.2}}
        - !TransformerEncoder {{input_size: 8, hidden_size: 8, n_heads: 2, n_layers: 1}}
        - null
      pooling: !MeanPooling
      embedding_dropout: 0.2
    output_layer: !SoftmaxLayer
      input_size: !@ model[embedder].output_size
      output_size: !@ dataset[transform][label].vocab_size
  train: !Trainer
    dataset: !@ dataset
    train_sampler: !BaseSampler {{batch_size: 3, bucket_by_length: true}}
    val_sampler: !BaseSampler {{shuffle: false}}
    model: !@ model
    loss_fn: !torch.NLLLoss
    metric_fn: !Accuracy
    optimizer: !torch.Adam {{params: !@ 'train[model].trainable_params', lr: 0.01}}
    max_steps: 4
    iter_per_step: 2
    device: cpu
  evaluate: !Evaluator {{dataset: !@ dataset, model: !@ 'train[model]', metric_fn: !Accuracy , device: cpu}}
  more: !Trainer
    dataset: !@ dataset
    train_sampler: !BaseSampler {{batch_size: 3}}
    val_sampler: !BaseSampler {{shuffle: false}}
    model: !@ train[model]
    loss_fn: !torch.NLLLoss
    metric_fn: !Accuracy
    optimizer: !torch.SGD {{params: !@ 'more[model].trainable_params', lr: 0.1, momentum: 0.5}}
    max_steps: 4
    iter_per_step: 2
    device: cpu
reduce: {{train: 2}}
"""


def test_text_and_training_that_goes_on_with_another(lab: Lab) -> None:
    assert len(compare(lab, TEXT.format(out=lab.root / "out"))) == 5


# -- components of one's own --------------------------------------------------------------------

EXTENSION = '''
import collections, datetime, random
import numpy as np, pandas as pd, torch
from flambe.compile import Component
from flambe.dataset import BaseDataset
import flambe
from sklearn.ensemble import RandomForestClassifier

class Draws(Component):
    """Draws from every generator that all share, and from some of its own."""
    def __init__(self, steps: int = 4) -> None:
        self.steps, self.done = steps, 0
        self.drawn, self.seen = [], set()
        self.counts, self.recent = collections.Counter(), collections.deque(maxlen=3)
        self.table = pd.DataFrame({"step": np.zeros(0, "int32"), "when": pd.to_datetime([])})
        self.mean = np.float32(0.1)
        self.own = [random.Random(1), np.random.default_rng(2), torch.Generator().manual_seed(3)]
        self.register_attrs("done", "drawn", "seen", "counts", "recent", "table", "mean", "own")
    def run(self) -> bool:
        self.done += 1
        numbers = [random.random(), random.gauss(0, 1), np.random.normal(), float(torch.rand(()))]
        numbers += [self.own[0].gauss(0, 1), self.own[1].normal(), float(torch.rand((), generator=self.own[2]))]
        self.drawn.append(tuple(numbers))
        self.seen.add(round(numbers[0], 1))
        self.counts[self.done % 2] += 1
        self.recent.append(numbers[1])
        self.mean = np.float32(0.9) * self.mean + np.float32(numbers[2])
        row = {"step": [np.int32(self.done)], "when": [datetime.datetime(2020, 1, self.done)]}
        self.table = pd.concat([self.table, pd.DataFrame(row).astype(self.table.dtypes)])
        flambe.log("drawn", numbers[0])
        return self.done < self.steps
    def metric(self) -> float:
        return float(self.mean)

class Forest(Component):
    """Grows an estimator of scikit-learn, a tree at a time."""
    def __init__(self, steps: int = 3) -> None:
        self.steps = steps
        self.clf = RandomForestClassifier(0, warm_start=True)
        self.register_attrs("clf", pickle=True)
    def run(self) -> bool:
        from sklearn.datasets import load_iris
        data = load_iris()
        self.clf.n_estimators += 1
        self.clf.fit(data.data, data.target)
        return self.clf.n_estimators < self.steps
    def metric(self) -> float:
        from sklearn.datasets import load_iris
        data = load_iris()
        return float(self.clf.predict_proba(data.data)[:, 0].sum())

class Lazy(torch.utils.data.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, row):
        return torch.full((4,), float(row)), row % 3

class LazyData(BaseDataset):
    def __init__(self) -> None:
        self.train, self.val, self.test = Lazy(), Lazy(), Lazy()
        self.n_features, self.n_classes = 4, 3
'''


@pytest.fixture
def _own(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = lab.root / "site" / "drawing"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("FLAMBE_HOME", str(lab.root / "home"))
    yield
    sys.modules.pop("drawing", None)
    for classes in CLASSES.by_tag.values():
        classes[:] = [cls for cls in classes if cls.__module__ != "drawing"]


def own(lab: Lab, pipeline: str) -> str:
    return f"drawing: ./drawing\n---\n!Experiment\nname: trial\nsave_path: {lab.root / 'out'}\npipeline:\n{pipeline}"


@pytest.mark.usefixtures("_own")
def test_components_that_draw_random_numbers(lab: Lab) -> None:
    text = "  draw: !drawing.Draws {steps: !g [4, 5]}\n  grow: !drawing.Forest\n"
    assert len(compare(lab, own(lab, text))) == 3


@pytest.mark.usefixtures("_own")
@pytest.mark.parametrize("n_workers", [0, 1])
def test_data_that_is_read_row_by_row(lab: Lab, n_workers: int) -> None:
    sampler = f"!BaseSampler {{batch_size: 16, n_workers: {n_workers}}}"
    text = training(lab, sampler=sampler).replace(
        "!SklearnDataset {name: iris}", "!drawing.LazyData"
    )
    assert compare(lab, f"drawing: ./drawing\n---\n{text.lstrip()}")


def test_scripts(lab: Lab) -> None:
    (lab.root / "script.py").write_text(
        "import flambe\nflambe.log('accuracy', 0.5, 1)\nflambe.log('accuracy', 0.75, 2)\n"
    )
    text = HEAD.format(out=lab.root / "out") + (
        "  run: !Script {script: script.py, metric: accuracy}\n"
        "  train: !Script {script: script.py, metric: accuracy, args: [!@ 'run[script]']}\n"
    )
    assert compare(lab, text) == set()  # a single step each: there is nothing to interrupt


# -- searches -----------------------------------------------------------------------------------


def test_a_search_at_random(lab: Lab) -> None:
    """Searchers that learn, and schedulers of Tune, are not here.

    What a searcher proposes depends on the order in which variants end, and on its own random
    numbers, which are not kept: a resumed one is told the figures of before. What a scheduler stops
    depends on the variants that run beside, and a resumed one begins without its figures.
    """
    optimizer = f"!torch.SGD {{{PARAMS}, lr: !tune.loguniform [0.001, 0.1], momentum: 0.9}}"
    text = training(lab, optimizer=optimizer) + "search: {train: {num_samples: 3}}\n"
    assert len(compare(lab, text)) == 3


@pytest.mark.long
def test_a_run_in_processes_that_is_killed(lab: Lab) -> None:
    """Through the command, with Ray: the processes of before are gone, and so is all they had."""
    text = training(lab).replace("iter_per_step: 3", "iter_per_step: 600")
    lab.config.write_text(text, encoding="utf-8")
    done = flambe(lab.config)
    assert done.returncode == 0, done.stderr
    undisturbed = results(Outcome(lab.folder, None, Watcher()))
    lab.folder.root.rename(lab.root / "undisturbed")
    mark = f"flambe-killed-{uuid.uuid4().hex}"
    running = subprocess.Popen(
        command(lab.config),
        env=environment(FLAMBE_MARK=mark),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def is_at_work() -> bool:
            entries = lab.folder.read_variants().values()
            return running.poll() is not None or any(entry.step >= 2 for entry in entries)

        until(is_at_work, "two steps")
    finally:
        kill_all(mark)
        running.wait()
    statuses = [entry.status.done for entry in lab.folder.read_variants().values()]
    assert not all(statuses) or len(statuses) < 2
    done = flambe(lab.config, "--resume")
    assert done.returncode == 0, done.stderr
    resumed = results(Outcome(lab.folder, None, Watcher()))
    assert list(resumed) == list(undisturbed)
    for name in undisturbed:
        for what in ("known", "figures", "states"):
            one, other = undisturbed[name][what], resumed[name][what]
            assert same(one, other), f"{name}: {what}: {difference(one, other)}"


# -- the examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "language"])
def test_examples(lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "language":
        pytest.importorskip("django")
        monkeypatch.syspath_prepend(EXAMPLES / "language" / "src")
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    text = re.sub(
        r"name: (digits|language)\n\npipeline",
        f"name: trial\nsave_path: {lab.root / 'out'}\npipeline",
        text,
    )
    text = text.replace("max_steps: 8", "max_steps: 4").replace(
        "iter_per_step: 100", "iter_per_step: 5"
    )
    text = text.replace("[cs, da, de, es, fi, fr, hu, it, nl, pl, pt, sv]", "[cs, da]")
    text = text.replace("!g [32, 64, 128]", "!g [32, 64]").replace(
        "[0.001, 0.003, 0.01]", "[0.003]"
    )
    assert compare(lab, text)
