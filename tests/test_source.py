"""Source code and its trees, from several threads at once."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flambe._source import parse, source_of


@pytest.fixture(autouse=True)
def _threads_that_take_turns() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_trees_are_made_by_several_threads() -> None:
    text = Path(ast.__file__).read_text(encoding="utf-8")[:20_000].rpartition("\n\n\n")[0]

    def make(number: int) -> str:
        return ast.dump(parse(text)) if number % 2 else source_of(json.JSONDecoder)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(60)))) == 2
