"""Older code, as docs/migrating.md has it: every example there is run."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import flambe
from flambe.cluster import LocalCluster
from flambe.compile import yaml
from flambe.progress import RunFolder, Status, read_lines
from tests.cli.inline import WITH_TORCH
from tests.cluster.conftest import connected

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("local-cluster")]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "migrating.md"
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "jobs"
version = "0.1"
[tool.hatch.build.targets.wheel]
packages = ["src/jobs"]
"""


def examples() -> dict[str, str]:
    """Return the blocks of the page: the file that each says it is → its text."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in found if language != "console"]
    files = {}
    for block in blocks:
        first, _, rest = block.partition("\n")
        assert first.startswith("# "), f"which file is this? {first}"
        files[first.removeprefix("# ")] = rest
    return files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder with the files of the page; its extensions can be imported here."""
    for name, text in examples().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    secrets = tmp_path / "secrets.ini"
    secrets.write_text("[SERVICE]\nkey = abcdefgh\n", encoding="utf-8")
    secrets.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    for name in ("vintage", "jobs"):
        monkeypatch.syspath_prepend(str(tmp_path / name / "src"))
    yield tmp_path
    for name in ("vintage", "jobs"):
        sys.modules.pop(name, None)


def run(
    folder: Path, *arguments: str, paths: Sequence[str] = (), code: int = 0
) -> subprocess.CompletedProcess[str]:
    paths = paths or [str(folder / name / "src") for name in ("vintage", "jobs")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "150"}
    done = subprocess.run(
        [sys.executable, "-c", WITH_TORCH, *arguments],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_every_file_of_the_page_is_valid(folder: Path) -> None:
    files = [name for name in examples() if name.endswith(".yaml")]
    assert sorted(files) == ["ask.yaml", "cluster.yaml", "old.yaml", "prepared.yaml"]
    for name in files:
        loaded = yaml.load(folder / name)
        assert yaml.load(yaml.dump(loaded)) == loaded


def test_an_old_extension_and_its_experiment(folder: Path) -> None:
    done = run(folder, "old.yaml")
    # Three steps, and both places of the net have them.
    assert "weights [3.0, 3.0, 3.0] after 3 steps" in done.stdout
    output = RunFolder(folder / "flambe-output" / "output__old")
    trained = [v for v in output.read_variants().values() if v.stage == "1_train"]
    assert [v.choices for v in trained] == [{"size": 2}, {"size": 3}]
    assert [v.metric for v in trained] == [6.0, 9.0]
    looked = [v for v in output.read_variants().values() if v.stage == "2_look"]
    assert sum(v.status is Status.FINISHED for v in looked) == 1
    for variant in trained:
        place = output.variant("1_train", variant.name)
        figures = [(f["tag"], f["value"], f["step"]) for f in read_lines(place / "metrics.jsonl")]
        assert [f for f in figures if f[0] == "weight"] == [("weight", n, n) for n in (1, 2, 3)]
        (words,) = {value for tag, value, _ in figures if tag == "words"}
        checkpoint = output.checkpoint("1_train", variant.name)
        saved = flambe.load(checkpoint, extensions=["vintage"])
        assert saved.words == words
        assert saved.teacher is saved.student
        assert [path.name for path in checkpoint.iterdir() if path.is_dir()] == ["teacher"]
    # Nothing is done again: the same file is the same variants.
    before = set(output.read_variants())
    again = run(folder, "old.yaml", "--resume")
    assert "weights" not in again.stdout
    assert set(output.read_variants()) == before


def test_a_runnable_with_secrets(folder: Path) -> None:
    done = run(folder, "ask.yaml", "--secrets", "secrets.ini")
    assert "What is new? A key of 8 characters, 10 times." in done.stdout


def test_a_cluster_runnable_here_and_its_setup(
    folder: Path, local: Callable[..., LocalCluster]
) -> None:
    assert "nothing is prepared here" in run(folder, "prepared.yaml").stdout
    cluster = local(1)
    hosts = connected(cluster)
    job: Any = yaml.load(folder / "prepared.yaml")()
    job.setup(cluster, {}, force=False)
    for host in hosts:
        assert host.run(["cat", "old-job/note"]).stdout == "prepared\n"
        assert host.run(["ls"]).stdout.split() == ["old-job"]
    assert job.folder.endswith("/old-job")
    assert job.user_provider() == importlib.import_module("getpass").getuser()
    assert f"folder: {job.folder}" in yaml.dump(job)
    cluster.create_dirs([Path("old-job", "more")])
    assert hosts[0].run(["ls", Path("old-job")]).stdout.split() == ["more", "note"]
    # As it was written for a cluster that takes one text.
    with pytest.raises(TypeError, match="create_dirs"):
        cluster.create_dirs("old")
    assert hosts[0].run(["ls"]).stdout.split() == ["old-job"]


@pytest.mark.long
def test_a_cluster_runnable_on_a_cluster(folder: Path) -> None:
    """As the last command of the page."""
    (folder / "jobs" / "pyproject.toml").write_text(PROJECT)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-build-isolation"]
    install += ["--offline", "--no-deps", "--target", str(folder / "site"), str(folder / "jobs")]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    site = str(folder / "site")
    try:
        done = run(folder, "prepared.yaml", "--cluster", "cluster.yaml", paths=[site])
        assert "prepared" in done.stdout.splitlines()
        assert "factory_1 | ready" in done.stdout + done.stderr
        # As it was written before: nothing is made, and the line is named.
        module = folder / "site" / "jobs" / "__init__.py"
        module.write_text(module.read_text().replace("([self.folder])", "(self.folder)"))
        older = run(folder, "prepared.yaml", "--cluster", "cluster.yaml", paths=[site], code=1)
        assert "preparing the cluster for !jobs.Prepared: TypeError: create_dirs() " in older.stderr
        assert "takes a list of folders, not one text: write ['old-job']" in older.stderr
        assert "jobs/__init__.py:" in older.stderr
        assert "Traceback" not in older.stderr
    finally:
        run(folder, "down", "cluster.yaml", "--force", paths=[site])
