"""Which distributions contain a module, as importlib.metadata has it."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

from flambe._distributions import direct_url_of, distributions_of

_seconds = itertools.count(1_700_000_000)


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


def test_what_is_installed_later_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert distributions_of("later") == []
    install(tmp_path, "1.0", "later.py,,\n")
    assert [one.version for one in distributions_of("later")] == ["1.0"]
    # The same folder, installed again from elsewhere and with another module.
    shutil.rmtree(tmp_path / "later-1.0.dist-info")
    install(tmp_path, "1.0", "other/__init__.py,,\n", '{"url": "file:///there"}')
    assert distributions_of("later") == []
    (owner,) = distributions_of("other")
    assert direct_url_of(owner) == '{"url": "file:///there"}'
    (tmp_path / "later-1.0.dist-info" / "RECORD").unlink()
    pass_time(tmp_path / "later-1.0.dist-info")
    assert distributions_of("other") == []


def install(folder: Path, version: str, record: str, direct_url: str = "") -> None:
    info = folder / f"later-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: later\nVersion: {version}\n")
    (info / "RECORD").write_text(record)
    if direct_url:
        (info / "direct_url.json").write_text(direct_url)
    pass_time(info)


def pass_time(info: Path) -> None:
    """Let a folder have changed at another time: the clock of a file system has coarse ticks."""
    seconds = next(_seconds)
    os.utime(info, (seconds, seconds))
