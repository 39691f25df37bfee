"""What is recorded of git repositories: commit, differences, and nothing secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flambe.packaging import repositories
from flambe.packaging.repositories import find_repositories, without_login


def git(folder: Path, *arguments: str, text: str = "") -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "conf").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "model.py").write_text("rate = 1\n")
    (folder / "conf" / "secrets.ini").write_text("[a]\ntoken = first\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    git(folder, "remote", "add", "origin", "https://me:token@example.org/project.git")
    return folder


def test_a_clean_tree_has_a_commit_and_no_diff(repository: Path) -> None:
    (record,) = find_repositories({"run.yaml": repository / "conf", "extension e": repository})
    assert record.folder == str(repository)
    assert record.uses == ["run.yaml", "extension e"]
    assert record.commit == git(repository, "rev-parse", "HEAD")
    assert record.branch == "main"
    assert record.remote == "https://example.org/project.git"
    assert (record.dirty, record.diff, record.untracked, record.omitted) == (False, "", [], "")


def test_the_diff_of_a_dirty_tree_makes_it_again(repository: Path, tmp_path: Path) -> None:
    (repository / "model.py").write_text("rate = 2\n")
    (repository / "new.py").write_text("first = 1\nlast = 2")
    (repository / "empty.py").write_text("")
    (repository / "data.bin").write_bytes(b"\0\1")
    (record,) = find_repositories({"run.yaml": repository})
    assert record.dirty
    assert record.untracked == ["data.bin", "empty.py", "new.py"]
    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(repository), str(again))
    git(again, "apply", "-", text=record.diff)
    for name in ("model.py", "new.py", "empty.py"):
        assert (again / name).read_text() == (repository / name).read_text()


def test_the_output_of_runs_is_not_a_change(repository: Path) -> None:
    run = repository / "flambe-output" / "output__digits"
    (run / "train").mkdir(parents=True)
    (run / "experiment.yaml").write_text("a: 1\n")
    (run.parent / ".output__digits.lock").touch()
    (record,) = find_repositories({"run.yaml": repository})
    assert (record.dirty, record.untracked, record.diff) == (False, [], "")


def test_files_that_may_hold_secrets_are_left_out(repository: Path) -> None:
    (repository / "conf" / "secrets.ini").write_text("[a]\ntoken = second\n")
    (repository / "server.key").write_text("third")
    (repository / ".env.yaml").write_text("password: fourth")
    (record,) = find_repositories({"run.yaml": repository})
    assert record.dirty
    assert record.diff == ""
    assert record.omitted == "conf/secrets.ini, .env.yaml"


def test_a_diff_is_bounded_and_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "LARGEST_DIFF", 2048)
    (repository / "model.py").write_text("".join(f"rate = {n}\n" for n in range(10_000)))
    (repository / "new.py").write_text("x = 1\n" * 1000)
    (record,) = find_repositories({"run.yaml": repository})
    assert len(record.diff) <= 2048
    assert record.diff.endswith("\n")
    assert record.omitted == "all beyond 2 KiB, new.py"


def test_without_a_commit_and_without_a_repository(tmp_path: Path) -> None:
    assert find_repositories({"run.yaml": tmp_path}) == []
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "run.yaml").write_text("a: 1\n")
    (record,) = find_repositories({"run.yaml": tmp_path})
    assert record.commit == ""
    assert record.dirty
    assert "+a: 1" in record.diff


def test_no_program_that_a_repository_names_is_run(repository: Path, tmp_path: Path) -> None:
    """Its configuration may name a monitor, a diff program and converters of text."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(program))
    git(repository, "config", "diff.external", str(program))
    git(repository, "config", "diff.python.textconv", str(program))
    (repository / ".git" / "info").mkdir(exist_ok=True)
    (repository / ".git" / "info" / "attributes").write_text("*.py diff=python\n")
    (repository / "model.py").write_text("rate = 2\n")
    (record,) = find_repositories({"run.yaml": repository})
    assert "+rate = 2" in record.diff
    assert not ran.exists()


def test_where_git_is_missing_the_record_says_so(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    (record,) = find_repositories({"run.yaml": repository})
    assert record.problem == "git is not installed"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:word@example.org/a.git", "https://example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("/srv/git/a", "/srv/git/a"),
    ],
)
def test_the_address_of_a_repository_has_no_password(url: str, expected: str) -> None:
    assert without_login(url) == expected
