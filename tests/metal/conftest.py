"""Hosts for tests: ``metal`` below this folder, ``with lent(3) as metal:`` elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.metal import Metal, missing
from tests.metal.client import Client


def skip_where_impossible() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if packages := missing():
        pytest.skip(f"needs {', '.join(packages)}")


@contextlib.contextmanager
def lent(count: int, **options: Any) -> Iterator[Metal]:
    """Lend hosts to a fixture; skip where there can be none."""
    skip_where_impossible()
    with Metal(count, **options) as metal:
        yield metal


@pytest.fixture(autouse=True)
def _possible() -> None:
    skip_where_impossible()


@pytest.fixture(scope="module")
def metal() -> Iterator[Metal]:
    """Lend three hosts to all the tests of a module."""
    with lent(3) as lot:
        yield lot


@pytest.fixture
def ssh(metal: Metal, tmp_path: Path) -> Client:
    """Return what reaches them from outside."""
    return Client(metal, tmp_path)
