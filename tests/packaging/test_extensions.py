"""Extensions: where they come from, and their installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.compile.reader.extension_origins import GitSource, git_source
from flambe.errors import ConfigError
from flambe.packaging.extensions import checkout, install

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://a.org/user/repo/tree/main/ext", GitSource("https://a.org/user/repo", "main/ext")),
        ("https://a.org/user/repo", GitSource("https://a.org/user/repo")),
        ("https://a.org/user/repo/", GitSource("https://a.org/user/repo")),
        ("ssh://git@a.org/user/repo/tree/v1", GitSource("ssh://git@a.org/user/repo", "v1")),
        ("git@a.org:user/repo.git/tree/a/b/c", GitSource("git@a.org:user/repo.git", "a/b/c")),
        ("file:///srv/repo/tree/x", GitSource("file:///srv/repo", "x")),
        ("./extensions/mine", None),
        ("../mine", None),
        ("some-package==1.0", None),
        ("some-package[extra]>=1.0,<2", None),
    ],
)  # fmt: skip
def test_origins(origin: str, expected: GitSource | None) -> None:
    assert git_source(origin) == expected


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repo = tmp_path / "repo"
    (repo / "deep" / "ext").mkdir(parents=True)
    (repo / "deep" / "ext" / "file").write_text("one")
    git(tmp_path, "init", "-q", "-b", "main", str(repo))
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "one")
    git(repo, "tag", "v1")
    git(repo, "branch", "feature/new")
    return repo


def test_a_repository_is_cloned_once_and_updated(repository: Path, home: Path) -> None:
    url = f"file://{repository}"
    first = checkout(GitSource(url, "main/deep/ext"))
    assert (first / "file").read_text() == "one"
    assert first.is_relative_to(home / "extensions")
    (repository / "deep" / "ext" / "file").write_text("two")
    git(repository, "commit", "-qam", "two")
    assert (checkout(GitSource(url, "main/deep/ext")) / "file").read_text() == "two"
    assert (checkout(GitSource(url, "v1/deep/ext")) / "file").read_text() == "one"
    assert (checkout(GitSource(url, "feature/new/deep/ext")) / "file").read_text() == "one"
    assert len(list((home / "extensions").iterdir())) == 1


@pytest.mark.parametrize("rest", ["nowhere", "main/nowhere", "main/../../.."])
def test_what_is_not_there_is_said(repository: Path, rest: str) -> None:
    with pytest.raises(ConfigError):
        checkout(GitSource(f"file://{repository}", rest))


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exit code 128"):
        checkout(GitSource(f"file://{tmp_path}/nothing"))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        install("mine", "./mine", tmp_path)


def test_the_hello_example_is_installed_and_run(tmp_path: Path, home: Path) -> None:
    """In an environment of its own, in one command."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=120)
    python = venv / "bin" / "python"
    # What this environment has is importable there too, and pip installs into the new one.
    site = subprocess.check_output(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
    ).strip()
    own = [p for p in sys.path if p.endswith("site-packages")]
    Path(site, "parent.pth").write_text("\n".join([*own, str(ROOT / "src")]) + "\n")
    for name in ("hello.yaml", "hello"):
        (tmp_path / name).symlink_to(ROOT / "examples" / name)
    command = [str(python), "-m", "flambe", "hello.yaml"]
    broken = tmp_path / "broken.yaml"
    broken.write_text("hello: ./hello\nheron_none: heron-none-of-this-name==1\n---\n!hello.Hello\n")
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    refused = subprocess.run(
        [*command[:-1], str(broken), "-i"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        check=False, env=offline,
    )  # fmt: skip
    assert refused.returncode == 2, refused.stderr
    assert "this failed with exit code 1" in refused.stderr
    assert "heron-none-of-this-name" in refused.stderr
    assert not list(Path(site).glob("*hello*"))  # nothing was installed of the other one either
    result = subprocess.run(
        [*command, "-i"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines().count("hello, world") == 2
    change = f"flambe-example-hello 0.1.0 (new, from {tmp_path / 'hello'})"
    assert f"installing into {venv}: 1 package\n  {change}\n" in result.stderr
    again = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert again.returncode == 0, again.stderr
    # A second copy runs its own code, or nothing.
    other = tmp_path / "other"
    shutil.copytree(ROOT / "examples" / "hello", other / "hello")
    shutil.copy(ROOT / "examples" / "hello.yaml", other)
    (source,) = (path for path in other.rglob("*.py") if "hello, " in path.read_text())
    source.write_text(source.read_text().replace("hello, ", "bye, "))
    refused = subprocess.run(command, cwd=other, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"declared as ./hello ({other / 'hello'}), but Python imports it from" in refused.stderr
    ran = subprocess.run(
        [*command, "-i"], cwd=other, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert f"(reinstall, from {other / 'hello'})" in ran.stderr
    assert ran.stdout.splitlines().count("bye, world") == 2
