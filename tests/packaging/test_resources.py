"""Resources from the web; tests/experiment/test_inline.py has those of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from flambe.errors import ResourceError
from flambe.packaging import resources


@pytest.mark.parametrize("proxy", ["socks9://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(
        ResourceError, match=r"resource 'data': cannot fetch http://h/x: .*(?i:sock|proxy)"
    ):
        resources.fetch("data", "http://h/x", tmp_path, tmp_path / "to")
