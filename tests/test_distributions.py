"""Which distributions contain a module, as importlib.metadata has it."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from flambe._distributions import distributions_of


@pytest.mark.skipif(sys.version_info < (3, 11), reason="it needs top_level.txt before Python 3.11")
def test_all_that_is_installed_is_attributed_as_python_does_it() -> None:
    expected = metadata.packages_distributions()
    assert len(expected) > 100
    for module, names in expected.items():
        if module.isidentifier():
            actual = [str(one.metadata["Name"]) for one in distributions_of(module)]
            assert sorted(actual) == sorted(set(names)), module


def test_a_module_of_a_wheel_without_top_level_txt() -> None:
    assert metadata.distribution("rich").read_text("top_level.txt") is None
    assert [str(one.metadata["Name"]) for one in distributions_of("rich")] == ["rich"]
    assert distributions_of("no_such_module_at_all") == []
