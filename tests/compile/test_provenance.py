"""An extension is imported from where the file says, or the file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flambe.compile.reader.document import read_file
from flambe.compile.reader.provenance import mismatch
from tests.experiment.lab import environment, flambe


def package(folder: Path, name: str = "kestrel_ext") -> Path:
    """Write the sources of an extension; return the folder of its project."""
    module = folder / "src" / name
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("WHERE = __file__\n")
    (folder / "pyproject.toml").write_text(f"[project]\nname = '{name}'\nversion = '1.2'\n")
    return folder


def install(
    site: Path, name: str, url: str = "", *, editable: bool = False, copy: str = ""
) -> None:
    """Write what pip leaves of an installed distribution."""
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "RECORD").write_text(f"{copy}/__init__.py,,\n" if copy else "")
    if copy:
        (info / "top_level.txt").write_text(f"{copy}\n")
        (site / copy).mkdir()
        (site / copy / "__init__.py").touch()
    if url:
        kind = {"dir_info": {"editable": editable}} if "file://" in url else {"vcs_info": {}}
        (info / "direct_url.json").write_text(json.dumps({"url": url, **kind}))


def test_the_clone_that_is_installed_is_the_one_that_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (package(tmp_path / name / "ext") for name in ("one", "two"))
    install(tmp_path / "site", "kestrel_ext", first.as_uri(), editable=True)
    paths = f"{tmp_path / 'site'}:{first / 'src'}"
    config = "kestrel_ext: ./ext\n---\n!Experiment\nname: a\npipeline: {}\n"
    for folder in (first.parent, second.parent):
        (folder / "a.yaml").write_text(config)
    result = flambe("validate", second.parent / "a.yaml", env=environment(PYTHONPATH=paths))
    assert result.returncode == 2
    error, _, _, hint = result.stderr.splitlines()[:4]
    assert error == (
        f"error: {second.parent}/a.yaml:1:1: extension 'kestrel_ext' is declared as ./ext "
        f"({second}), but Python imports it from {first}/src/kestrel_ext"
    )
    assert hint.strip() == "= run again with -i to install it from ./ext"
    monkeypatch.syspath_prepend(str(first / "src"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert mismatch("kestrel_ext", "./ext", str(first.parent)) == ""
    assert mismatch("kestrel_ext", f"{first}/", "/") == ""
    assert "but Python imports it from" in mismatch("kestrel_ext", "./ext", str(second.parent))
    # What is declared and is not there may be installed from elsewhere, also on a cluster.
    assert mismatch("kestrel_ext", "./gone", str(second.parent)) == ""
    monkeypatch.setenv("FLAMBE_HOST", "factory_1")
    assert mismatch("kestrel_ext", "./ext", str(second.parent)) == ""


def test_packages_of_another_name_are_not_meant(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("yaml: ./yaml\n---\n!Experiment {name: a, pipeline: {}}\n")
    told = [str(problem.message) for problem in read_file(tmp_path / "a.yaml").problems]
    assert told[0].startswith(
        f"extension 'yaml': there is no folder {tmp_path}/yaml, but Python imports it from PyYAML "
    )
    package(tmp_path / "yaml", "yaml")
    assert "(of PyYAML " in mismatch("yaml", "./yaml", str(tmp_path))
    assert mismatch("yaml", "pyyaml>=5", str(tmp_path)) == ""
    assert mismatch("yaml", "PyYAML<5", str(tmp_path)).endswith(" is installed")
    assert "but Python imports it from PyYAML" in mismatch("yaml", "ruamel.yaml", str(tmp_path))
    assert mismatch("no_such_module", "./yaml", str(tmp_path)) == ""


def test_what_was_installed_from_its_origin_may_be_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, source = tmp_path / "site-packages", package(tmp_path / "ext")
    install(site, "kestrel_ext", source.as_uri(), copy="kestrel_ext")
    git = "https://example.com/team/ext"
    install(site, "heron-lib", f"{git}.git", copy="heron_lib")
    monkeypatch.syspath_prepend(str(site))
    assert mismatch("kestrel_ext", "./ext", str(tmp_path)) == ""
    package(tmp_path / "other")
    assert "but Python imports it from" in mismatch("kestrel_ext", "./other", str(tmp_path))
    assert mismatch("heron_lib", f"{git}/tree/main/sub", "") == ""
    told = mismatch("heron_lib", "https://example.com/other/ext", "")
    assert told.endswith(f"({site}/heron_lib), installed from {git}.git")
    assert mismatch("heron_lib", "heron-lib==1.2", "") == ""
