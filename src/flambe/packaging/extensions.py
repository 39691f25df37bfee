"""Extensions: fetching their source, and installing them with ``flambe -i``."""

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
from typing import TypedDict
from urllib.parse import unquote, urlsplit

from packaging.version import Version

from flambe._process import quote_tail
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

LARGE = 100 * 1024**2  # bytes; a larger clone causes a warning
DEADLINE = 1800  # seconds for one command of git or pip
_FIRST_WITH_REPORT = Version("22.2")  # of pip: --dry-run --report

Notify = Callable[[str], None]


@dataclass(frozen=True)
class _Source:
    """What pip is to install for an extension: a folder or a requirement."""

    name: str
    origin: str
    target: str
    editable: bool = False


class _PackageName(TypedDict):
    name: str
    version: str


class _DownloadInfo(TypedDict, total=False):
    url: str
    dir_info: dict[str, object]


class _PipReportEntry(TypedDict):
    """A package in the report of ``pip install``.

    See https://pip.pypa.io/en/stable/reference/installation-report/
    """

    metadata: _PackageName
    download_info: _DownloadInfo


def install(name: str, origin: str, base: Path, notify: Notify = lambda text: None) -> None:
    """Install one extension; see :func:`install_all`."""
    install_all({name: origin}, base, notify)


def install_all(
    extensions: Mapping[str, str], base: Path, notify: Notify = lambda text: None
) -> None:
    """Install extensions into this environment, all together.

    The changes are listed before they are made.

    Parameters
    ----------
    extensions
        Top-level module → a local folder, a Git URL or a pip requirement.
    base
        What a relative folder is relative to.
    notify
        Called with each line of progress.

    Raises
    ------
    ConfigError
        If they cannot be installed: with the end of the output of git or pip.
    """
    for name, origin in extensions.items():
        if reason := wrong_origin(origin):
            raise ConfigError(Problem(f"extension {name!r}: {reason}", hint=EXPECTED))
    sources = [_prepare(name, origin, base, notify) for name, origin in extensions.items()]
    if not sources:
        return
    before = _linked_folders()
    changes = _plan_changes(sources)
    for line in _format_changes(changes):
        notify(line)
    if changes != []:
        _pip(sources)
    # Python reads the .pth file of an editable install at start only, and keeps the folder of the
    # one that it replaced (test_extensions.py::test_the_hello_example_is_installed_and_run).
    removed = before - _linked_folders()
    sys.path[:] = [entry for entry in sys.path if entry not in removed]
    site.addsitedir(sysconfig.get_paths()["purelib"])
    importlib.invalidate_caches()
    for source in sources:
        if importlib.util.find_spec(source.name) is None:
            reason = f"{source.origin} was installed, but has no module {source.name!r}"
            raise ConfigError(
                Problem(
                    f"extension {source.name!r}: {reason}",
                    hint="an extension is declared by the name of its top-level module",
                )
            )


def _prepare(name: str, origin: str, base: Path, notify: Notify) -> _Source:
    """Return what pip is to install, after its repository, if any, was cloned or updated."""
    redact.add_url(origin)
    repository = git_source(origin)
    folder = base / os.path.expanduser(origin)
    if repository is not None:
        notify(f"{name}: updating from {repository.url}")
        folder = checkout(repository, notify)
        notify(f"{name}: installing commit {_commit(folder)}")
        return _Source(name, origin, str(folder))
    if folder.is_dir():
        return _Source(name, origin, str(folder), editable=True)
    if origin.startswith((".", "/", "~")) or requirement(origin) is None:
        raise ConfigError(
            Problem(
                f"extension {name!r}: there is no folder {folder}",
                hint="relative paths start at the folder of the configuration",
            )
        )
    return _Source(name, origin, origin)


def _plan_changes(sources: Sequence[_Source]) -> list[str] | None:
    """Return what an installation would change; None where this pip cannot report it."""
    _require_pip(sources)
    if Version(metadata.version("pip")) < _FIRST_WITH_REPORT:
        return None
    with tempfile.TemporaryDirectory(prefix="flambe-pip-") as folder:
        report = Path(folder, "report.json")
        _pip(sources, "--dry-run", f"--report={report}")
        entries: list[_PipReportEntry] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [_format_change(entry) for entry in entries]


def _format_change(entry: _PipReportEntry) -> str:
    """Return what becomes of one package."""
    name, version = entry["metadata"]["name"], entry["metadata"]["version"]
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = ""
    download = entry["download_info"]
    url = urlsplit(download.get("url", ""))
    is_folder = url.scheme == "file" and "dir_info" in download
    source = f", from {unquote(url.path)}" if is_folder else ""
    if not installed:
        return f"{name} {version} (new{source})"
    if installed == version:
        return f"{name} {version} (reinstall{source})"
    return f"{name} {installed} -> {version}" + (f" ({source[2:]})" if source else "")


def _format_changes(changes: Sequence[str] | None) -> list[str]:
    """Return the lines that announce the changes."""
    if changes is None:
        newer = f"pip {_FIRST_WITH_REPORT} or newer lists the changes first"
        return [f"installing into {sys.prefix}; {newer}"]
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


def checkout(source: GitSource, notify: Notify = lambda text: None) -> Path:
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
    ref, folder = _split_ref(clone, source.rest)
    _git(["-C", str(clone), "checkout", "--quiet", "--force", "--detach", ref, "--"])
    size = sum(f.stat().st_size for f in clone.rglob("*") if f.is_file() and not f.is_symlink())
    if size > LARGE:
        notify(f"warning: {clone} takes {size // 1024**2} MB")
    path = clone / folder
    if not path.resolve().is_relative_to(clone.resolve()) or not path.is_dir():
        raise ConfigError(f"{source.url} has no folder {folder!r} at {ref}")
    return path


def _split_ref(clone: Path, rest: str) -> tuple[str, str]:
    """Split ``/tree/…`` into ref and folder; the name of a branch may contain slashes too."""
    if not rest:
        return "origin/HEAD", ""
    parts = rest.split("/")
    for end in range(len(parts), 0, -1):
        name = "/".join(parts[:end])
        for ref in (f"refs/remotes/origin/{name}", f"refs/tags/{name}", name):
            if _is_commit(clone, ref):
                return ref, "/".join(parts[end:])
    raise ConfigError(f"there is no branch, tag or commit {parts[0]!r} in {clone.name}")


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h of %cs: %s"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _is_commit(clone: Path, ref: str) -> bool:
    command = ["git", "-C", str(clone), "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _git(arguments: list[str]) -> None:
    _run(["git", *arguments], {**os.environ, "GIT_TERMINAL_PROMPT": "0"}, umask=0o077)


def _require_pip(sources: Sequence[_Source]) -> None:
    if importlib.util.find_spec("pip") is None:
        arguments = " ".join(_pip_arguments(sources))
        raise ConfigError(
            Problem(
                f"{_describe(sources)} cannot be installed: this environment has no pip",
                hint=f"install it with the tool that made the environment: {arguments}",
            )
        )


def _describe(sources: Sequence[_Source]) -> str:
    names = listed([repr(source.name) for source in sources])
    return f"extension {names}" if len(sources) == 1 else f"one of the extensions {names}"


def _pip_arguments(sources: Sequence[_Source]) -> list[str]:
    editable = [f"--editable={source.target}" for source in sources if source.editable]
    return [*editable, "--", *(source.target for source in sources if not source.editable)]


def _pip(sources: Sequence[_Source], *options: str) -> None:
    """Run ``pip install`` with these options."""

    def explain(output: str) -> Problem | None:
        conflict = own_name.conflict_in(output)
        text = f"{_describe(sources)} cannot be installed: {conflict}"
        return Problem(text, hint=own_name.WHY) if conflict else None

    with tempfile.TemporaryDirectory(prefix="flambe-pip-") as folder:
        # Not --quiet: pip explains conflicts on its standard output.
        command = [sys.executable, "-m", "pip", "install", *own_name.constraints(Path(folder))]
        _run([*command, *options, *_pip_arguments(sources)], dict(os.environ), explain=explain)


def _run(
    command: list[str],
    environment: dict[str, str],
    umask: int = -1,
    *,
    explain: Callable[[str], Problem | None] | None = None,
) -> None:
    """Run a command to its end.

    Raises
    ------
    ConfigError
        If it fails: what ``explain`` makes of its output, or else its end.
    """
    text = " ".join(command)
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
        raise ConfigError(Problem(f"{command[0]} is not installed", hint=text)) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"timed out after {DEADLINE} s: {text}") from None
    if result.returncode:
        if explain is not None and (problem := explain(result.stdout + result.stderr)):
            raise ConfigError(problem)
        tail = quote_tail(result.stderr, prefix="  ")
        raise ConfigError(f"this failed with exit code {result.returncode}: {text}{tail}")
