"""Overrides: what they change, what they refuse, and where their mistakes are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Grid, Link, Schema
from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_file, read_text
from flambe.errors import ConfigError

CONFIG = """\
!Experiment
name: digits
pipeline:
  dataset: !SklearnDataset {name: digits}
  model: !Classifier
    encoder: &encoder !MLPEncoder
      input_size: !@ dataset.n_features
      output_size: !g [16, 32]
      n_layers: 2
    n_classes: !@ dataset.n_classes
  layers: !torch.Sequential
  - !torch.Linear {in_features: 1, out_features: 2}
  - !torch.ReLU
  train: !Trainer
    dataset: !@ dataset
    model: !@ model
    train_sampler: !BaseSampler {batch_size: 64}
    val_sampler: !BaseSampler
    loss_fn: !torch.CrossEntropyLoss
    metric_fn: !Accuracy
    optimizer: !torch.Adam
      params: !@ train[model].trainable_params
      lr: 0.01
reduce: {train: 1}
resources:
  words: ./words.txt
"""


def read(*overrides: str, text: str = CONFIG, folder: str = "") -> Any:
    document = read_text(text, "digits.yaml", folder, overrides=overrides)
    check(document)
    document.raise_problems()
    return document.root


def value(root: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(root, Schema):
            root = root.args[int(key)] if key.isdigit() else {"kwargs": {}, **root.kwargs}[key]
        elif isinstance(root, Grid):
            root = root.elements[int(key)]
        else:
            root = root[int(key) if isinstance(root, list) else key]
    return root


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("train.optimizer.lr=0.1", "pipeline.train.optimizer.lr", 0.1),
        ("train.optimizer.lr=!g [0.1, 0.01]", "pipeline.train.optimizer.lr", Grid((0.1, 0.01))),
        ("train.optimizer.lr=1e-3", "pipeline.train.optimizer.lr", 1e-3),
        ("pipeline.train.optimizer.lr=0.1", "pipeline.train.optimizer.lr", 0.1),
        ("train[optimizer][lr]=0.1", "pipeline.train.optimizer.lr", 0.1),
        (".pipeline.'train'.\"optimizer\".lr=0.1", "pipeline.train.optimizer.lr", 0.1),
        # A keyword that the class takes need not be in the file.
        ("train.max_steps=5", "pipeline.train.max_steps", 5),
        ("train.val_sampler.batch_size=5", "pipeline.train.val_sampler.batch_size", 5),
        ("seed=3", "seed", 3),
        ("name=other", "name", "other"),
        ("reduce.train=2", "reduce.train", 2),
        ("reduce.model=2", "reduce.model", 2),
        ("schedulers.train=!ray.MedianStoppingRule", "schedulers.train.kwargs", {}),
        ("+resources.more=./more.txt", "resources.more", "./more.txt"),
        ("layers.0.out_features=3", "pipeline.layers.0.out_features", 3),
        (
            "+layers.2=!torch.Linear {in_features: 2, out_features: 1}",
            "pipeline.layers.2.in_features",
            2,
        ),
        ("model.encoder.output_size.1=64", "pipeline.model.encoder.output_size", Grid((16, 64))),
        ("model=!Classifier {encoder: !@ layers, n_classes: 2}", "pipeline.model.n_classes", 2),
        ("storage=", "storage", None),
        ("storage='null'", "storage", "null"),
        ("save_path=a=b", "save_path", "a=b"),
        ("devices={cpu: 2}", "devices", {"cpu": 2}),
    ],
)
def test_what_an_override_sets(override: str, path: str, expected: object) -> None:
    document = read_text(CONFIG, "digits.yaml", overrides=[override])
    assert value(document.root, path) == expected
    assert not document.problems
    assert document.root.overrides == (override,)


def test_they_are_applied_in_order() -> None:
    root = read("train.max_steps=5", "train.max_steps=6", "~reduce", "+reduce.train=3")
    assert value(root, "pipeline.train.max_steps") == 6
    assert root.kwargs["reduce"] == {"train": 3}


def test_a_key_is_removed() -> None:
    assert "reduce" not in read("~reduce").kwargs
    assert "lr" not in value(read("~train.optimizer.lr"), "pipeline.train.optimizer").kwargs
    assert len(value(read("~layers.1"), "pipeline.layers").args) == 1


def test_the_file_itself_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "digits.yaml"
    path.write_text(CONFIG)
    read_file(path, overrides=["train.max_steps=5"])
    assert path.read_text() == CONFIG


def test_what_is_merged_is_copied_where_it_is_changed() -> None:
    text = "!Experiment\nname: x\npipeline:\n  a: &a !torch.Linear\n    in_features: 1\n"
    text += "    out_features: &n [1]\n  b: !torch.Linear\n    <<: *a\n"
    root = read_text(text, overrides=["b.in_features=5", "b.out_features.0=2"]).root
    assert value(root, "pipeline.a").kwargs == {"in_features": 1, "out_features": [1]}
    assert value(root, "pipeline.b").kwargs == {"in_features": 5, "out_features": [2]}


def test_an_alias_is_the_same_object() -> None:
    text = CONFIG.replace("!torch.ReLU", "*encoder")
    root = read("model.encoder.n_layers=3", text=text)
    assert value(root, "pipeline.layers.1").kwargs["n_layers"] == 3


def test_a_part_can_be_changed_and_a_value_can_include_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("!torch.Linear {in_features: 1, out_features: 2}\n")
    (tmp_path / "main.yaml").write_text("!Experiment\nname: x\npipeline:\n  a: !include a.yaml\n")
    overrides = ["a.in_features=3", "+pipeline.b=!include a.yaml"]
    root = read_file(tmp_path / "main.yaml", overrides=overrides).root
    assert value(root, "pipeline.a.in_features") == 3
    assert value(root, "pipeline.b.in_features") == 1


@pytest.mark.torch
@pytest.mark.parametrize(
    ("override", "column", "message", "hint"),
    [
        (
            "train.max_stepz=5",
            7,
            "unknown keyword 'max_stepz' for !Trainer",
            "did you mean 'max_steps'?",
        ),
        (
            "+train.max_stepz=5",
            8,
            "unknown keyword 'max_stepz' for !Trainer",
            "did you mean 'max_steps'?",
        ),
        ("train.optimizr.lr=1", 7, "there is no 'optimizr' in train", "did you mean 'optimizer'?"),
        ("trian.max_steps=5", 1, "there is no stage or keyword 'trian'", "did you mean 'train'?"),
        ("sed=5", 1, "there is no stage or keyword 'sed'", "did you mean 'seed'?"),
        ("train.optimizer.lr=fast", 20, "'lr' of !torch.Adam cannot be 'fast'", "expected number"),
        (
            "train.optimizer.lr=!g [0.1, fast]",
            29,
            "'lr[1]' of !torch.Adam cannot be 'fast'",
            "expected number",
        ),
        ("train.optimizer.lr=[1", 22, "not valid YAML: ", ""),
        ("train.optimizer=!torch.Adm", 17, "unknown tag !torch.Adm", "did you mean"),
        ("train.model=!@ modl", 13, "!@ modl leads to nothing", "did you mean 'model'?"),
        (
            "train.model.n_classes=2",
            13,
            "train.model is a link (!@ model)",
            "override what it leads to",
        ),
        ("train.optimizer.lr.x=2", 20, "train.optimizer.lr is a single value", ""),
        (
            "resources.more=x",
            11,
            "there is no 'more' in resources",
            "it has: words; to add it:   +resources.more=x",
        ),
        ("+train.optimizer.lr=1", 18, "train.optimizer.lr is there already", "leave the + out"),
        ("~train.scheduler", 8, "there is no 'scheduler' in train", ""),
        ("~reduce=1", 8, "not an override", "~ removes a key, and takes no value:   ~reduce"),
        ("layers.2.x=1", 8, "there is no '2' in layers", "it has 2 elements, from 0"),
        (
            "+layers.5=!torch.ReLU",
            9,
            "layers has 2 elements, and none '5'",
            "+layers.2=... adds one",
        ),
        ("resume", 7, "not an override", "expected   key=value, +key=value or ~key"),
        ("a b=1", 2, "not an override", "expected   key=value"),
        ("=1", 1, "not an override", "expected   key=value"),
        (
            "train.optimizer.lr=!env FLAMBE_UNSET",
            20,
            "the environment variable FLAMBE_UNSET is not set",
            "export",
        ),
        ("name=!include x.yaml", 6, "!include is not possible in a text", "write the part"),
        ("reduce=--- 1\n--- 2", 0, "the value of an override is one YAML value", ""),
    ],
)
def test_mistakes(override: str, column: int, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("seed=1", override)
    [problem] = [p for p in caught.value.problems if p.message.startswith(message)]
    assert problem.place is not None
    assert problem.place.file == "override 2"
    assert problem.place.text == override.splitlines()[0] or not column
    assert problem.place.column == column or not column
    assert problem.hint.startswith(hint)


@pytest.mark.torch
def test_a_stage_that_is_named_like_a_keyword_is_ambiguous() -> None:
    text = (
        "!Experiment\nname: x\npipeline:\n  seed: !torch.Linear {in_features: 1, out_features: 2}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read("seed.in_features=3", text=text)
    [problem] = caught.value.problems
    assert problem.message == "'seed' is a stage, and a keyword of !Experiment too"
    assert "pipeline.seed.in_features" in problem.hint
    assert ".seed.in_features" in problem.hint
    root = read_text(text, overrides=["pipeline.seed.in_features=3", ".seed=4"]).root
    assert value(root, "pipeline.seed.in_features") == 3
    assert root.kwargs["seed"] == 4


@pytest.mark.torch
def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read("train.max_stepz=5", "sed=3", "train.optimizer.lr=x")
    assert [str(p.place) for p in caught.value.problems] == [
        "override 1:1:7",
        "override 2:1:1",
        "override 3:1:20",
    ]


@pytest.mark.torch
def test_links_and_objects_of_other_files_than_experiments() -> None:
    root = read_text("!torch.Linear\nin_features: 1\n", overrides=["out_features=3"]).root
    assert root.kwargs == {"in_features": 1, "out_features": 3}
    assert read_text("{a: 1}", overrides=["a=!@ b"]).root == {"a": Link("b")}
    assert read_text("{a: {1: 2}}", overrides=["a.1=3"]).root == {"a": {1: 3}}
