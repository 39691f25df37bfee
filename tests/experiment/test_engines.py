"""Searchers and schedulers of Ray Tune: what they may be told, and what is missing for them.

What a file may say of them stands in the golden cases as well (``error_experiment_engine_*``).
"""

from __future__ import annotations

import importlib.util
import logging

import pytest

from flambe.compile.reader.document import read_file
from flambe.errors import ConfigError
from flambe.packaging.extras import extras_of
from tests.experiment.lab import Lab, flambe

SPACE = "walk: !pieces.Walk {rate: !tune.uniform [0.0, 1.0], record: RECORD}"

# Searchers that need a package, and the line that installs it.
NEEDS = {
    "AxSearch": ("ax", "pip install 'ax-platform<1'"),
    "BayesOptSearch": ("bayes_opt", "pip install 'bayesian-optimization<2'"),
    "HEBOSearch": ("hebo", "pip install 'HEBO>=0.2.0'"),
    "HyperOptSearch": ("hyperopt", "pip install hyperopt"),
    "NevergradSearch": ("nevergrad", "pip install nevergrad"),
    "TuneBOHB": ("hpbandster", "pip install ConfigSpace hpbandster"),
    "ZOOptSearch": ("zoopt", "pip install 'zoopt>=0.4.1'"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(
    lab: Lab, name: str
) -> None:
    module, line = NEEDS[name]
    if importlib.util.find_spec(module) is not None:
        pytest.skip(f"{module} is installed")
    lab.write(SPACE, more=f"search: {{walk: !ray.{name} }}")
    with pytest.raises(ConfigError) as caught:
        lab.experiment()
    first = caught.value.problems[0]
    assert "not installed here" in first.message
    assert first.hint == line
    assert first.place is not None
    assert first.place.line == 7


@pytest.mark.integration
def test_validate_plan_and_run_say_so_and_touch_nothing(lab: Lab) -> None:
    if importlib.util.find_spec("zoopt") is not None:
        pytest.skip("zoopt is installed")
    lab.write(SPACE, more="search: {walk: !ray.ZOOptSearch {budget: 3}}")
    for command in (["validate"], ["plan"], []):
        result = flambe(*command, lab.config)
        assert result.returncode == 2
        assert "!ray.ZOOptSearch needs zoopt, which is not installed here" in result.stderr
        assert "pip install 'zoopt>=0.4.1'" in result.stderr
        assert f"{lab.config}:7:" in result.stderr
    assert not lab.folder.root.exists()


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


def test_the_package_of_a_searcher_is_installed_on_clusters_too(lab: Lab) -> None:
    pytest.importorskip("optuna")
    lab.write(SPACE, more="search: {walk: {searcher: !ray.OptunaSearch , num_samples: 2}}")
    assert extras_of(read_file(lab.config).root) == {"search"}


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
