"""What tests of the site leave behind is closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report.written import Written


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close the files of the runs that a test wrote."""
    yield
    while Written.made:
        Written.made.pop().close()
