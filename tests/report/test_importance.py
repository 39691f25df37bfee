"""How much a hyper-parameter matters, where it is known how much it does."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flambe.report import importance as estimating
from flambe.report.files import RunPath
from flambe.report.importance import importance
from flambe.report.metrics import figures
from flambe.report.payloads import Importance
from tests.report.written import Written

pytestmark = pytest.mark.integration


def told(choices: list[dict[str, Any]], metrics: list[float]) -> Importance:
    return asyncio.run(importance(choices, metrics))


def test_what_matters_is_told_from_noise() -> None:
    drawn = random.Random(3)
    choices: list[dict[str, Any]] = [
        {
            "rate": 10 ** drawn.uniform(-5, -1),
            "noise": drawn.random(),
            "kind": drawn.choice(["a", "b", "c"]),
            "same": 1,
        }
        for _ in range(80)
    ]
    metrics = [
        4 * row["rate"] ** 0.25 + {"a": 0.0, "b": 0.8, "c": 0.1}[row["kind"]] + drawn.gauss(0, 0.02)
        for row in choices
    ]
    found = told(choices, metrics)
    means = {one["name"]: one["mean"] for one in found["parameters"]}
    assert set(means) == {"rate", "noise", "kind"}  # what never varies is left out
    assert [one["name"] for one in found["parameters"]][-1] == "noise"
    assert means["rate"] > 0.3
    assert means["kind"] > 0.15
    assert abs(means["noise"]) < 0.05
    assert all(one["std"] >= 0 for one in found["parameters"])
    assert found["score"] > 0.8
    assert "permutation importance of a random forest" in found["estimator"]
    assert found["variants"] == 80


def test_a_dozen_variants_tell_something() -> None:
    """The accuracies of the trainings of examples/digits.yaml: folds of two or three variants."""
    accuracies = {
        (128, 0.01): 0.99167, (128, 0.003): 0.98889, (128, 0.001): 0.98611,
        (64, 0.01): 0.98611, (64, 0.003): 0.97778, (64, 0.001): 0.97778,
        (32, 0.01): 0.98056, (32, 0.003): 0.975, (32, 0.001): 0.96389,
        (16, 0.01): 0.975, (16, 0.003): 0.96111, (16, 0.001): 0.93056,
    }  # fmt: skip
    choices = [{"output_size": size, "lr": rate} for size, rate in accuracies]
    found = told(choices, list(accuracies.values()))
    assert [one["name"] for one in found["parameters"]] == ["output_size", "lr"]
    assert found["score"] > 0.2


def test_of_noise_alone_nothing_is_explained() -> None:
    drawn = random.Random(5)
    choices = [{"a": drawn.random(), "b": drawn.random()} for _ in range(60)]
    assert told(choices, [drawn.random() for _ in choices])["score"] < 0.1


@pytest.mark.parametrize(
    ("choices", "metrics", "reason"),
    [
        ([], [], "Nothing was varied"),
        ([{"a": 1}] * 30, [float(n) for n in range(30)], "Nothing was varied"),
        (
            [{"a": n} for n in range(9)],
            [float(n) for n in range(9)],
            "9 of them have a metric now, and 10",
        ),
        (
            [{c: n * k for k, c in enumerate("abcdef", 1)} for n in range(17)],
            [float(n) for n in range(17)],
            "and 18 are needed",
        ),
        ([{"a": n} for n in range(20)], [0.5] * 20, "All variants have the same metric"),
    ],
)
def test_too_little_to_tell_is_said(choices: list[Any], metrics: list[float], reason: str) -> None:
    assert reason in told(choices, metrics)["reason"]


def test_values_of_any_kind_are_compared() -> None:
    values = [None, True, "x", 3, 1e-8, [1, 2], {"k": 1}, "", "é", 2]
    choices = [{"a": value, "b": n} for n, value in enumerate(values * 3)]
    assert "parameters" in told(choices, [float(n % 10) for n in range(30)])


@pytest.mark.faults
def test_without_its_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sklearn.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    choices = [{"a": n} for n in range(20)]
    assert "pip install scikit-learn" in told(choices, [float(n) for n in range(20)])["reason"]
    (tmp_path / "sklearn.py").write_text("import os; os.kill(os.getpid(), 9)")
    assert "could not be estimated" in told(choices, [float(n) for n in range(20)])["reason"]


def test_its_libraries_are_not_those_of_the_site() -> None:
    code = "import sys; from flambe.report import create_app; create_app('x'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "ray", "sklearn", "pandas", "numpy", "tensorboard", "scipy"}
    assert estimating.ESTIMATOR


# -- the figures of variants --------------------------------------------------------------------


def test_figures_are_those_that_were_logged_last(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.add("a" * 16, "one")
    for step, value in ((1, 0.5), (2, 0.25), (3, float("nan")), (2, 0.75), (4, float("inf"))):
        run.record("a" * 16, "scalar", "loss", value, step)
    run.record("a" * 16, "text", "words", "not a figure", 1)
    run.record("a" * 16, "scalar", "when", 1.0, None)
    run.record("a" * 16, "scalar", "when", 2.0, None)
    with open(tmp_path / "train" / "one" / "metrics.jsonl", "a") as stream:
        stream.write('{"tag": "loss", "step": "x", "value": 1}\n{"tag": 5}\n[]\n{"tag": "lo')
    found = figures(RunPath.of(tmp_path / "train" / "one" / "metrics.jsonl"))
    assert found["loss"][0][:4] == [1, 2, 3, 4]
    assert found["loss"][1][:4] == [0.5, 0.75, None, None]
    assert found["when"] == ([1, 2], [1.0, 2.0])
    assert "words" not in found
    assert figures(RunPath.of(tmp_path / "nothing")) == {}
