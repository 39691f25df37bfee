"""Searchers and schedulers of Ray Tune: what they may be told, and what is missing for them.

What a file may say of them stands in the golden cases as well (``error_experiment_engine_*``).
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Schema
from flambe.compile.reader.document import read_file
from flambe.errors import ConfigError
from flambe.experiment.search.engines import build
from flambe.packaging.extras import ENGINES, extra_of_engine, extras_of, requirements_of
from tests.experiment.lab import Lab, flambe

SPACE = "walk: !pieces.Walk {rate: !tune.uniform [0.0, 1.0], record: RECORD}"

# What an engine imports, as the versions here say it, and the line that installs it.
NEEDS = {
    "AxSearch": (
        {"ax-platform": "1.3.1", "pandas": "3.0.1"},
        "needs ax-platform<1,>=0.5 (1.3.1 is installed here); and pandas<3,>=2.1 (3.0.1 is",
        "pip install 'ax-platform<1,>=0.5' 'pandas<3,>=2.1'",
    ),
    "BayesOptSearch": (
        {"bayesian-optimization": "2.0.0"},
        "needs bayesian-optimization<2,>=1.4 (2.0.0 is installed here)",
        "pip install 'bayesian-optimization<2,>=1.4'",
    ),
    "HyperOptSearch": (
        {},
        "needs hyperopt, which is not installed here",
        "pip install 'hyperopt>=0.2.7'",
    ),
    "TuneBOHB": (
        {},
        "needs configspace, hpbandster, which are not installed here",
        "pip install 'configspace>=1.0' 'hpbandster>=0.7.4'",
    ),
}


def pretend(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str]) -> None:
    """Let only these packages of searchers be installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("flambe.experiment.search.engine_packages.metadata.version", version)


@pytest.mark.parametrize("name", NEEDS)
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    versions, message, line = NEEDS[name]
    pretend(monkeypatch, versions)
    lab.write(SPACE, more=f"search: {{walk: !ray.{name} }}")
    with pytest.raises(ConfigError) as caught:
        lab.experiment()
    first = caught.value.problems[0]
    assert message in first.message
    assert first.hint == line
    assert first.place is not None
    assert first.place.line == 7


@pytest.mark.integration
def test_validate_plan_and_run_say_so_and_touch_nothing(lab: Lab) -> None:
    lab.write(SPACE, more="search: {walk: !ray.HEBOSearch }")
    for command in (["validate"], ["plan"], []):
        result = flambe(*command, lab.config)
        assert result.returncode == 2
        assert "!ray.HEBOSearch is not supported: HEBO needs a NumPy older" in result.stderr
        assert "use !ray.OptunaSearch" in result.stderr
        assert f"{lab.config}:7:" in result.stderr
    assert not lab.folder.root.exists()


def test_each_engine_of_ray_that_needs_a_package_has_an_extra() -> None:
    """Their modules say what they import: ``pip install …``, in an error that they raise."""
    for folder in ("search", "schedulers"):
        package = importlib.util.find_spec(f"ray.tune.{folder}")
        assert package is not None
        root = next(iter(package.submodule_search_locations or ()))
        for path in Path(root).rglob("*.py"):
            if "pip install" not in path.read_text(encoding="utf-8") or "hebo" in path.name:
                continue
            names = path.relative_to(root).with_suffix("").parts
            extra = extra_of_engine(".".join(("ray.tune", folder, *names)))
            assert requirements_of(extra), path


def test_extras_name_no_module_that_ray_has_not() -> None:
    for name in ENGINES:
        assert importlib.util.find_spec(name) is not None, name


@pytest.mark.parametrize(
    ("written", "optimizer", "budget"),
    [
        ("", "NGOpt", 7),
        ("optimizer: OnePlusOne", "OnePlusOne", 7),
        ("optimizer: CMA, optimizer_kwargs: {budget: 40}", "CMA", 40),
    ],
)
def test_nevergrad_is_given_its_optimizer_by_name(
    lab: Lab, written: str, optimizer: str, budget: int
) -> None:
    pytest.importorskip("nevergrad")
    from nevergrad import optimizers

    searcher = f"!ray.ConcurrencyLimiter {{searcher: !ray.NevergradSearch {{{written}}}, max_concurrent: 2}}"
    lab.write(SPACE, more=f"search: {{walk: {{searcher: {searcher}, num_samples: 7}}}}")
    schema = read_file(lab.config).root.kwargs["search"]["walk"]["searcher"]
    assert lab.experiment().search
    made: Any = build(schema, {}, 7)
    assert made.searcher._opt_factory is optimizers.registry[optimizer]
    assert made.searcher._optimizer_kwargs == {"budget": budget}
    lab.write(SPACE, more="search: {walk: !ray.NevergradSearch {optimizer: OnePlusTwo}}")
    with pytest.raises(ConfigError, match="Nevergrad has no optimizer 'OnePlusTwo'") as caught:
        lab.experiment()
    assert "OnePlusOne" in caught.value.problems[0].hint


def test_arguments_may_be_given_by_position(lab: Lab) -> None:
    pytest.importorskip("zoopt")
    searcher = "!ray.ConcurrencyLimiter [!ray.ZOOptSearch [asracos], 2]"
    lab.write(SPACE, more=f"search: {{walk: {{searcher: {searcher}, num_samples: 7}}}}")
    made: Any = build(read_file(lab.config).root.kwargs["search"]["walk"]["searcher"], {}, 7)
    assert (made.max_concurrent, made.searcher._budget) == (2, 7)
    own = Schema("pieces.searchers:Forwarding", "pieces.searchers.Forwarding", ["a", 2])
    made = build(own, {}, 7)
    assert made.arguments == ("a", 2)
    schema = Schema("ray.tune.search.zoopt.zoopt_search:ZOOptSearch", "ray.ZOOptSearch")
    made = build(replace(schema, args=["asracos", 30]), {}, 7)
    assert made._budget == 30


def test_zoopt_has_a_budget(lab: Lab) -> None:
    pytest.importorskip("zoopt")
    lab.write(SPACE, more="search: {walk: !ray.ZOOptSearch {budget: 2}}")
    with pytest.raises(ConfigError, match="ZOOpt needs a larger budget than 2"):
        lab.experiment()
    lab.write(SPACE, more="search: {walk: {num_samples: 1, searcher: !ray.ZOOptSearch }}")
    assert lab.experiment().search
    target = "ray.tune.search.zoopt.zoopt_search:ZOOptSearch"
    for written, budget in (({}, 7), ({"budget": 30}, 30)):
        made: Any = build(Schema(target, "ray.ZOOptSearch", [], written), {}, 7)
        assert made._budget == budget


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ("schedulers: {walk: !ray.ASHAScheduler {max_t: 1, grace_period: 3}}", "grace_period"),
        ("schedulers: {walk: !pieces.searchers.LowestFirst }", "mode of !pieces.searchers.Low"),
        ("schedulers: {walk: !pieces.searchers.OfEpochs }", "'epoch': no variant reports that"),
    ],
)
def test_one_that_cannot_be_built_is_told_before_anything_is_touched(
    lab: Lab, engine: str, told: str
) -> None:
    outcome = lab.run(SPACE, more=engine)
    error = outcome.raised()
    assert isinstance(error, ConfigError)
    assert told in str(error)
    assert f"{lab.config}:7:" in str(error)
    assert not lab.folder.root.exists()


@pytest.mark.parametrize(
    ("more", "extra"),
    [
        ("search: {walk: {searcher: !ray.OptunaSearch , num_samples: 2}}", "search"),
        ("search: {walk: !ray.HyperOptSearch }", "hyperopt"),
        ("schedulers: {walk: !ray.PB2 {time_attr: steps}}", "pb2"),
    ],
)
def test_the_package_of_a_searcher_is_installed_on_clusters_too(
    lab: Lab, more: str, extra: str
) -> None:
    lab.write(SPACE, more=more)
    assert extras_of(read_file(lab.config).root) == {extra}


def test_a_searcher_of_numbers_alone_takes_no_options(lab: Lab) -> None:
    pytest.importorskip("bayes_opt")
    options = "walk: !pieces.Walk {rate: !tune.uniform [0.0, 1.0], steps: !g [1, 2]}"
    lab.write(options, more="search: {walk: !ray.BayesOptSearch }")
    with pytest.raises(ConfigError, match="cannot search the options .* of stage 'walk'"):
        lab.experiment()
    lab.write(SPACE, more="search: {walk: !ray.BayesOptSearch }")
    assert lab.experiment().search


def test_a_searcher_that_would_drop_a_part_of_a_space_is_refused_in_silence(
    lab: Lab, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    walk = "walk: !pieces.Walk {rate: !tune.qloguniform [0.1, 1.0, 0.1]}"
    lab.write(walk, more="search: {walk: !ray.OptunaSearch }")
    logger = logging.getLogger("ray.tune.search")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what is refused does not depend on what is shown
    try:
        with pytest.raises(ConfigError, match="cannot search !tune.qloguniform: .* quantization"):
            lab.experiment()
        assert logger.level == logging.CRITICAL
    finally:
        logger.setLevel(level)
    assert "quantization" not in "".join(capfd.readouterr())
    lab.write(walk)
    assert lab.experiment().pipeline
