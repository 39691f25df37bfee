"""Extensions: where they come from, and their installation when it is asked for."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.version import Version

from flambe.compile.reader.extension_origins import (
    EXPECTED,
    GitSource,
    git_source,
    requirement,
    wrong_origin,
)
from flambe.errors import ConfigError, Problem, counted, listed
from flambe.logging import redact
from flambe.logging.console import home_folder
from flambe.packaging import own_name

LARGE = 100 * 1024**2  # bytes; a clone beyond it is worth a warning
DEADLINE = 1800  # seconds for one command of git or pip
_REPORTS = Version("22.2")  # the first pip that says what it would do

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Source:
    """What pip is to install of an extension: a folder or a requirement."""

    name: str
    origin: str
    target: str
    editable: bool = False


def install(name: str, origin: str, base: Path, say: Say = lambda text: None) -> None:
    """Install one extension; see :func:`install_all`."""
    install_all({name: origin}, base, say)


def install_all(extensions: Mapping[str, str], base: Path, say: Say = lambda text: None) -> None:
    """Install extensions into this environment, all together.

    What changes is listed before anything does.

    Parameters
    ----------
    extensions
        Top-level module → a local folder, a Git URL or a pip requirement.
    base
        What a relative folder is relative to.
    say
        Is told what goes on.

    Raises
    ------
    ConfigError
        If they cannot be installed: with what git or pip said.
    """
    for name, origin in extensions.items():
        if what := wrong_origin(origin):
            raise ConfigError(Problem(f"extension {name!r}: {what}", hint=EXPECTED))
    sources = [_source(name, origin, base, say) for name, origin in extensions.items()]
    if not sources:
        return
    before = _linked_folders()
    changes = _changes(sources)
    for line in _listed(changes):
        say(line)
    if changes != []:
        _pip(sources)
    # A new .pth file (of an editable install) is read at start only; and what it replaced is gone.
    gone = before - _linked_folders()
    sys.path[:] = [entry for entry in sys.path if entry not in gone]
    site.addsitedir(sysconfig.get_paths()["purelib"])
    importlib.invalidate_caches()
    for source in sources:
        if importlib.util.find_spec(source.name) is None:
            what = f"{source.origin} was installed, and has no module {source.name!r}"
            raise ConfigError(
                Problem(
                    f"extension {source.name!r}: {what}",
                    hint="an extension is declared by the name of its top-level module",
                )
            )


def _source(name: str, origin: str, base: Path, say: Say) -> _Source:
    """Return what pip is to install; a repository is cloned or updated for it."""
    redact.add_url(origin)
    repository = git_source(origin)
    folder = base / os.path.expanduser(origin)
    if repository is not None:
        say(f"{name}: updating from {repository.url}")
        folder = checkout(repository, say)
        say(f"{name}: installing commit {_commit(folder)}")
        return _Source(name, origin, str(folder))
    if folder.is_dir():
        return _Source(name, origin, str(folder), editable=True)
    if origin.startswith((".", "/", "~")) or requirement(origin) is None:
        raise ConfigError(
            Problem(
                f"extension {name!r}: there is no folder {folder}",
                hint="relative folders start at the folder of the configuration",
            )
        )
    return _Source(name, origin, origin)


def _changes(sources: Sequence[_Source]) -> list[str] | None:
    """Return what an installation would change; None where this pip cannot tell."""
    _need_pip(sources)
    if Version(metadata.version("pip")) < _REPORTS:
        return None
    with tempfile.TemporaryDirectory(prefix="flambe-pip-") as folder:
        report = Path(folder, "report.json")
        _pip(sources, "--dry-run", f"--report={report}")
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [_change(item) for item in found]


def _change(item: Mapping[str, Any]) -> str:
    """Return what becomes of a package, of an entry of pip's report."""
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = ""
    url = urlsplit(str(item.get("download_info", {}).get("url", "")))
    is_folder = url.scheme == "file" and "dir_info" in item["download_info"]
    where = f", from {unquote(url.path)}" if is_folder else ""
    if not installed:
        return f"{name} {version} (new{where})"
    if installed == version:
        return f"{name} {version} (again{where})"
    return f"{name} {installed} -> {version}" + (f" ({where[2:]})" if where else "")


def _listed(changes: Sequence[str] | None) -> list[str]:
    """Return the lines that say what is about to change."""
    if changes is None:
        return [f"installing into {sys.prefix}; pip {_REPORTS} or newer lists first what changes"]
    if not changes:
        return [f"nothing to install: {sys.prefix} has all extensions"]
    return [
        f"installing into {sys.prefix}: {counted(len(changes), 'package')}",
        *(f"  {change}" for change in changes),
    ]


def _linked_folders() -> set[str]:
    """Return the folders that .pth files name: those of editable installs."""
    files = Path(sysconfig.get_paths()["purelib"]).glob("*.pth")
    lines = (line for file in files for line in file.read_text(errors="replace").splitlines())
    return {line.strip() for line in lines if line.strip() and not line.startswith(("#", "import"))}


def checkout(source: GitSource, say: Say = lambda text: None) -> Path:
    """Clone a repository once, update it afterwards, and return the folder of the extension.

    Raises
    ------
    ConfigError
        If git fails, or the branch or folder does not exist.
    """
    digest = hashlib.sha256(source.url.encode()).hexdigest()[:8]
    short = source.url.rstrip("/").removesuffix(".git").rpartition("/")[2]
    clone = home_folder("extensions") / f"{short}-{digest}"
    if not (clone / ".git").is_dir():
        _git(["clone", "--quiet", "--", source.url, str(clone)])
    else:
        _git(["-C", str(clone), "fetch", "--quiet", "--tags", "--prune", "origin"])
    ref, folder = _split(clone, source.rest)
    _git(["-C", str(clone), "checkout", "--quiet", "--force", "--detach", ref, "--"])
    size = sum(f.stat().st_size for f in clone.rglob("*") if f.is_file() and not f.is_symlink())
    if size > LARGE:
        say(f"warning: {clone} takes {size // 1024**2} MB")
    path = clone / folder
    if not path.resolve().is_relative_to(clone.resolve()) or not path.is_dir():
        raise ConfigError(f"{source.url} has no folder {folder!r} at {ref}")
    return path


def _split(clone: Path, rest: str) -> tuple[str, str]:
    """Tell the branch from the folder: a branch may hold slashes too."""
    if not rest:
        return "origin/HEAD", ""
    parts = rest.split("/")
    for end in range(len(parts), 0, -1):
        name = "/".join(parts[:end])
        for ref in (f"refs/remotes/origin/{name}", f"refs/tags/{name}", name):
            if _known(clone, ref):
                return ref, "/".join(parts[end:])
    raise ConfigError(f"there is no branch, tag or commit {parts[0]!r} in {clone.name}")


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h of %cs: %s"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _known(clone: Path, ref: str) -> bool:
    command = ["git", "-C", str(clone), "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _git(arguments: list[str]) -> None:
    _command(["git", *arguments], {**os.environ, "GIT_TERMINAL_PROMPT": "0"}, umask=0o077)


def _need_pip(sources: Sequence[_Source]) -> None:
    if importlib.util.find_spec("pip") is None:
        words = " ".join(_words(sources))
        raise ConfigError(
            Problem(
                f"{_titled(sources)} cannot be installed: this environment has no pip",
                hint=f"install it with the tool that made the environment: {words}",
            )
        )


def _titled(sources: Sequence[_Source]) -> str:
    names = listed([repr(source.name) for source in sources])
    return f"extension {names}" if len(sources) == 1 else f"one of the extensions {names}"


def _words(sources: Sequence[_Source]) -> list[str]:
    editable = [f"--editable={source.target}" for source in sources if source.editable]
    return [*editable, "--", *(source.target for source in sources if not source.editable)]


def _pip(sources: Sequence[_Source], *options: str) -> None:
    """Let pip install, or say what it would, with these options."""

    def explain(output: str) -> Problem | None:
        what = own_name.refusal(output)
        text = f"{_titled(sources)} cannot be installed: {what}"
        return Problem(text, hint=own_name.WHY) if what else None

    with tempfile.TemporaryDirectory(prefix="flambe-pip-") as folder:
        # Not --quiet: pip says on its output what conflicts with what.
        command = [sys.executable, "-m", "pip", "install", *own_name.constraints(Path(folder))]
        _command([*command, *options, *_words(sources)], dict(os.environ), explain=explain)


def _command(
    command: list[str],
    environment: dict[str, str],
    umask: int = -1,
    *,
    explain: Callable[[str], Problem | None] | None = None,
) -> None:
    shown = " ".join(command)
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=DEADLINE,
            check=False,
            umask=umask,
        )
    except FileNotFoundError:
        raise ConfigError(Problem(f"{command[0]} is not installed", hint=shown)) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"no end after {DEADLINE} s: {shown}") from None
    if result.returncode:
        if explain is not None and (problem := explain(result.stdout + result.stderr)):
            raise ConfigError(problem)
        tail = "\n".join(f"  {line}" for line in result.stderr.strip().splitlines()[-12:])
        raise ConfigError(f"this failed with exit code {result.returncode}: {shown}\n{tail}")
