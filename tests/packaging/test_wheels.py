"""Wheels of the code that is here, and the versions of what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from flambe.errors import ConfigError
from flambe.packaging import closure, wheel
from flambe.remote.agent import verify
from flambe.remote.agent.protocol import OwnDistribution


def package(folder: Path, name: str, text: str = "VALUE = 1\n") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\ndependencies = ["packaging", "rich"]\n'
    )
    return folder


@pytest.fixture
def editable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a tree that is installed editable, where only this test sees it."""
    outer = package(tmp_path / "outer", "heron_outer")
    package(outer / "inner", "heron_inner")
    site = tmp_path / "site"
    for tree, name in ((outer, "heron_outer"), (outer / "inner", "heron_inner")):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            "Requires-Dist: packaging\nRequires-Dist: rich\n"
        )
        (info / "direct_url.json").write_text(
            f'{{"url": "file://{tree}", "dir_info": {{"editable": true}}}}'
        )
        (info / "RECORD").write_text("")
        monkeypatch.syspath_prepend(str(tree))
    monkeypatch.syspath_prepend(str(site))
    yield outer
    for name in ("heron_outer", "heron_inner"):
        sys.modules.pop(name, None)


def test_a_tree_gives_the_same_bytes_until_it_changes(editable: Path) -> None:
    first = wheel.wheel_of("heron_outer")
    assert wheel.wheel_of("heron_outer") == first
    copy = wheel.build(editable, editable.parent)
    assert copy.read_bytes() == first.path.read_bytes()
    (editable / "heron_outer" / "__init__.py").write_text("VALUE = 2\n")
    changed = wheel.wheel_of("heron_outer")
    assert changed.content != first.content
    with zipfile.ZipFile(changed.path) as opened:
        assert opened.read("heron_outer/__init__.py") == b"VALUE = 2\n"


def test_an_environment_in_a_tree_is_not_copied(editable: Path) -> None:
    """It may have gigabytes; a pipe is what cannot be copied."""
    folder = editable / "environment"
    folder.mkdir()
    (folder / "pyvenv.cfg").touch()
    os.mkfifo(folder / "pipe")
    with zipfile.ZipFile(wheel.build(editable, editable.parent)) as opened:
        assert not [name for name in opened.namelist() if "environment" in name]


def test_the_innermost_tree_is_where_a_module_comes_from(editable: Path) -> None:
    assert wheel.distribution_of("heron_inner") == "heron_inner"
    assert wheel.distribution_of("heron_outer") == "heron_outer"
    assert wheel.distribution_of("rich") == "rich"
    assert wheel.distribution_of("no_such_module_at_all") is None


def test_what_git_ignores_is_refused(editable: Path) -> None:
    (editable / ".gitignore").write_text("local.py\n")
    (editable / "heron_outer" / "local.py").write_text("SECRET = 1\n")
    with pytest.raises(ConfigError, match=r"heron_outer/local.py can be imported here, and is not"):
        wheel.wheel_of("heron_outer")


def test_an_installed_distribution_is_packed_again(tmp_path: Path) -> None:
    found = metadata.distribution("rich")
    first = wheel.repack(found, tmp_path / "a")
    second = wheel.repack(found, tmp_path / "b")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert (first.name, first.version) == ("rich", found.version)


def test_what_is_installed_is_known_by_its_files(editable: Path, tmp_path: Path) -> None:
    """The hash of a wheel is what the agent computes from what was installed of it."""
    one = wheel.wheel_of("heron_outer")
    target = tmp_path / "target"
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run([*command, "--target", str(target), str(one.path)], check=True)
    info = str(target / "heron_outer-1.0.dist-info")
    assert verify.distribution(info) == OwnDistribution(one.content, [])
    file = target / "heron_outer" / "__init__.py"
    file.write_text(file.read_text() + "\n")
    altered = verify.distribution(info)
    assert altered.wrong == ["heron_outer/__init__.py"]
    assert altered.hash != one.content
    file.unlink()
    assert verify.distribution(info).wrong == ["heron_outer/__init__.py"]


def test_the_closure_has_the_versions_that_are_here(editable: Path) -> None:
    found = closure.compute_closure(["heron_outer"])
    assert found.requirements == ("packaging", "rich")
    assert "heron-outer" not in found.versions
    for name in ("packaging", "rich", "pygments"):
        assert found.versions[name] == metadata.version(name).partition("+")[0]
    plain, more = closure.compute_closure(["flambe"]), closure.compute_closure(["flambe[learn]"])
    assert "torch" not in plain.versions
    assert "+" not in more.versions["torch"]
    assert any(text.startswith("torch") and "extra" not in text for text in more.requirements)


def test_what_is_needed_and_missing_is_named(editable: Path) -> None:
    path = editable.parent / "site" / "heron_outer-1.0.dist-info" / "METADATA"
    path.write_text(path.read_text() + "Requires-Dist: no-such-thing-at-all>=2\n")
    with pytest.raises(ConfigError, match="needs no-such-thing-at-all, which is not installed"):
        closure.compute_closure(["heron_outer"])
