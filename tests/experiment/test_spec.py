"""What is read from the keywords of an experiment, from manifests and from options of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Schema
from flambe.compile.state.file_writer import FileEntry
from flambe.errors import ConfigError
from flambe.experiment.spec import ExperimentSpec, SearchSpec
from flambe.experiment.storage.manifest import Manifest
from tests.experiment.lab import Lab

SEARCHER = Schema("ray.tune.search.optuna:OptunaSearch", "ray.OptunaSearch")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, SearchSpec()),
        (SEARCHER, SearchSpec(SEARCHER, 10)),
        ({"num_samples": 3}, SearchSpec(None, 3)),
        (
            {"searcher": SEARCHER, "num_samples": 4, "max_concurrent_trials": 2},
            SearchSpec(SEARCHER, 4, 2),
        ),
        ({"searcher": "no blueprint", "num_samples": "many"}, SearchSpec(None, 10)),
    ],
)
def test_the_search_of_a_stage(value: object, expected: SearchSpec) -> None:
    assert SearchSpec.read(value) == expected


def test_keywords_become_stages_in_order() -> None:
    train = Schema("pieces:Walk", "pieces.Walk")
    spec = ExperimentSpec.from_keywords(
        {"name": "x", "pipeline": {"b": train, "a": 1}, "reduce": {"b": 2}, "seed": 5}
    )
    assert spec.pipeline == {"b": train, "a": 1}
    assert list(spec.pipeline) == ["b", "a"]
    assert (spec.stage("b").reduce, spec.stage("a").reduce, spec.seed) == (2, None, 5)
    with pytest.raises(ConfigError, match="no pipeline"):
        ExperimentSpec.from_keywords({"name": "x"})


def test_the_spec_of_an_experiment_says_what_its_file_says(lab: Lab) -> None:
    lab.write("a: !pieces.Walk {steps: 1}", more="max_failures: 3", seed=7)
    spec = lab.experiment().spec()
    assert (spec.name, spec.seed, spec.max_failures) == ("trial", 7, 3)
    assert spec.folder == lab.root
    assert spec.save_path == str(lab.root / "out")


def test_an_option_of_a_run_that_does_not_exist_is_refused(lab: Lab) -> None:
    lab.write("a: !pieces.Walk {steps: 1}")
    with pytest.raises(TypeError, match="resum"):
        lab.run(resum=True)
    assert not lab.folder.root.exists()


@pytest.mark.parametrize("metric", [None, 1.5, math.inf, -math.inf])
def test_a_manifest_is_read_as_it_was_written(metric: float | None) -> None:
    files = {"state": FileEntry(10, "sha256:ab"), "of before": FileEntry(3, "")}
    manifest = Manifest(3, "id", 2, metric, 2.5, True, False, files)
    assert Manifest.parse(manifest.dump()) == manifest


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"step": "1", "files": {}}', '{"step": 1, "files": []}']
)
def test_what_is_not_a_manifest(text: str) -> None:
    with pytest.raises(ValueError, match="object|missing|Expecting"):
        Manifest.parse(text)


def test_a_manifest_of_an_earlier_version(tmp_path: Path) -> None:
    known: dict[str, Any] = {"step": 2, "metric": 1, "files": {}}
    manifest = Manifest.parse(str(known).replace("'", '"'))
    assert (manifest.step, manifest.metric, manifest.attempt, manifest.done) == (2, 1, 0, False)
