from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.lab import Lab, Outcome
from tests.metal.equipped import installed  # noqa: F401 (a fixture)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Ray for all tests of a file: executors use the one that runs already."""
    from flambe.experiment.executors.tune.driver import TuneExecutor

    first = TuneExecutor(tmp_path_factory.mktemp("first"))
    first.start()
    yield
    first.close()


@pytest.fixture
def tuned(lab: Lab, one_ray: None) -> Any:
    """Run experiments by Tune, in the one Ray of the file."""

    def run(*arguments: Any, **options: Any) -> Outcome:
        return lab.run(*arguments, executor=None, **options)

    return run
