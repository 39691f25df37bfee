"""The habits of the project: what is in its files, and what belongs together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import LONGEST

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same, of the time before
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Folders of one machine or another; written apart, so that this file is no finding.
MACHINE_PATHS = re.compile(r"(?<![\w.~*<>}$-])/(?:" + "|".join(["work", "root", "opt"]) + r")/")
# A documented package index is everyone's.
PUBLIC_HOSTS = {"pypi.org", "files.pythonhosted.org", "localhost", "127.0.0.1", ""}


def files() -> list[Path]:
    """Return the files that are, or would be, in the repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    done = subprocess.run(
        # The checkout may belong to somebody else, on CI for one.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for path in files():
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            yield str(path.relative_to(ROOT)), data.decode("utf-8", errors="replace")


def package_hosts() -> set[str]:
    """Return the hosts and folders that this machine installs packages from."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    settings = [line.partition("=")[2].strip("'\"") for line in done.stdout.splitlines()]
    settings += [v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_"))]
    urls = [word for text in settings for word in text.split() if "://" in word]
    return {urlsplit(url).hostname or "" for url in urls} - PUBLIC_HOSTS


def test_no_path_of_a_machine_is_in_a_file() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in texts()
        for match in MACHINE_PATHS.finditer(text)
    ]
    assert not found


def test_no_host_that_packages_come_from_is_in_a_file() -> None:
    hosts = package_hosts()
    found = [f"{name}: {host}" for name, text in texts() for host in hosts if host in text]
    assert not found


def test_every_changelog_fragment_has_a_type() -> None:
    types = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    fragments = [p for p in (ROOT / "changelog.d").iterdir() if p.name != "README.md"]
    for path in fragments:
        assert re.fullmatch(r"\+?[\w-]+\.(" + "|".join(sorted(types)) + r")\.md", path.name), path
        assert path.read_text(encoding="utf-8").strip(), f"{path.name} is empty"


def test_every_page_of_the_documentation_is_reached() -> None:
    listed = set()
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"```\{toctree\}(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.splitlines():
                entry = re.sub(r".*<(.*)>", r"\1", line.strip())
                if entry and not entry.startswith(":"):
                    listed.add((page.parent / entry).resolve())
    pages = {page.with_suffix("").resolve() for page in DOCS.rglob("*.md")}
    assert not pages - listed - {(DOCS / "index").resolve()}
    assert not listed - pages


def dependencies() -> Iterator[str]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for group in [*groups, *PROJECT["dependency-groups"].values()]:
        for requirement in group:
            yield re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def test_every_dependency_has_its_reason() -> None:
    page = (DOCS / "dependencies.md").read_text(encoding="utf-8")
    missing = [name for name in dependencies() if f"| `{name}` |" not in page]
    assert not missing


def pins() -> dict[str, list[str]]:
    """Return the pins of development, each with its hashes."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    entries = re.split(r"\n(?=\S)", "\n".join(lines))
    assert all(re.match(r"[\w.-]+==[\w.]+( ; [^\\]+)?( \\|\Z)", entry) for entry in entries)
    return {
        normal(entry.partition("==")[0]): re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
        for entry in entries
    }


# Of extras that development does not install: Ax needs an older pandas, hpbandster a C compiler.
NOT_DEVELOPED_WITH = {"ax-platform", "ConfigSpace", "hpbandster"}


def test_every_dependency_is_pinned_for_development() -> None:
    assert {name for name in dependencies() if normal(name) not in pins()} == NOT_DEVELOPED_WITH


def test_every_pin_has_its_hashes() -> None:
    """All but torch's, whose file depends on the index: the part says so."""
    assert [name for name, hashes in pins().items() if not hashes] == ["torch"]
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert text.rpartition("\n# == ")[2].startswith("torch: exempt from hashes.")


def test_development_installs_nothing_without_a_hash() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = re.findall(r"\$\((?:PIP|INSTALL)\)(?! :=)([^\n&]*)", makefile)
    exempt = [
        " install -qq --no-compile",  # INSTALL itself
        " --requirement $(VENV)/torch.txt || { [ $(VENV) != .venv ] ",
        " --no-deps --no-build-isolation --editable .",
    ]
    assert [line for line in installs if "--require-hashes" not in line] == exempt
    # The parts that it cuts out are all of the file.
    parts = re.findall(r"^# == (\w+):", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    installed = set(re.findall(r"\$\(call (?:pinned|part),(\w+)\)", makefile)) - {"NAME"}
    assert set(parts) == installed


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_example_is_mentioned() -> None:
    pages = [ROOT / "README.md", *DOCS.rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    examples = sorted((ROOT / "examples").rglob("*.yaml"))
    missing = [str(p.relative_to(ROOT)) for p in examples if p.name not in text]
    assert not missing


def test_ci_runs_what_everyone_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    commands = [line for line in lines if not line.startswith(("#", "set ", "cd "))]
    assert commands[0] == "make test"
    assert all(command.startswith("make ") for command in commands)


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Pytest imports those of folders that are no packages by their name alone."""
    modules = [path for path in files() if re.fullmatch(r"test_\w+\.py", path.name)]
    names = [path.name for path in modules if not (path.parent / "__init__.py").exists()]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_modules_that_begin_first_exist() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


def test_pre_commit_runs_the_tools_of_make_lint() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = rules[rules.index("\nlint:") : rules.index("\nformat:")]
    tools = set(re.findall(r"\$\(BIN\)/([\w-]+)", recipe))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert tools == set(re.findall(r"entry: \.venv/bin/([\w-]+)", hooks))
