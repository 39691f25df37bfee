"""The git repositories that the code of a run comes from: their commits, and what differs.

Git only reads here: it takes no lock of the index, asks nothing, and runs neither hooks nor the
monitors, diff programs and converters that the configuration of a repository may name. Filters of
content, such as those of git-lfs, are run, as each ``git status`` does.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from flambe.progress import Repository

LARGEST_DIFF = 256 * 1024  # bytes of the diff of one repository
LARGEST_FILE = 64 * 1024  # bytes of an untracked file that is a part of the diff
MOST_UNTRACKED = 100  # names
#: Untracked files that are a part of the diff: code, and configurations.
SOURCES = (".py", ".pyi", ".yaml", ".yml", ".toml")
# Files that are made to hold secrets: their changes are left out.
SECRET_FILES = (
    *("secrets.ini", "secrets.json", "secrets.toml", "secrets.yaml", "secrets.yml", ".netrc"),
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "id_rsa", "id_ecdsa", "id_ed25519"),
)
SECONDS = 5.0  # for one repository
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "color.ui=false")
# A hook of git sets these: they name another repository than that of the folder.
_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")


def find_repositories(folders: Mapping[str, Path]) -> list[Repository]:
    """Return the repositories of folders, each once.

    Parameters
    ----------
    folders
        What of the run it is → the folder: one that is in no repository is left out.
    """
    tops: dict[Path, list[str]] = {}
    for use, folder in folders.items():
        if (top := _top(folder)) is not None:
            tops.setdefault(top, []).append(use)
    return [_read(top, uses) for top, uses in tops.items()]


def _top(folder: Path) -> Path | None:
    """Return the top folder of the repository that a folder is in, without git: ``.git`` is it."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def _read(top: Path, uses: Sequence[str]) -> Repository:
    repository = Repository(str(top), list(uses))
    git = _Git(top, SECONDS)
    try:
        repository.commit = git.line("rev-parse", "--verify", "--quiet", "HEAD")
        repository.branch = git.line("symbolic-ref", "--quiet", "--short", "HEAD")
        repository.remote = without_login(git.line("config", "--get", "remote.origin.url"))
        listing = git.text("ls-files", "--others", "--exclude-standard", "-z", "--", *_NO_OUTPUT)
        untracked = listing.split("\0")[:-1]
        base = ["HEAD"] if repository.commit else []
        changed = git.text("diff", "--name-only", "-z", *base).split("\0")[:-1]
        diff, is_whole = git.start("diff", *_DIFF, *base, *_ALL)
        repository.dirty = bool(changed or untracked)
        repository.untracked = untracked[:MOST_UNTRACKED]
        omitted = [] if is_whole else [f"all beyond {LARGEST_DIFF // 1024} KiB"]
        omitted += [name for name in changed if _may_hold_secrets(Path(name))]
        repository.diff = diff + "".join(_sources(top, untracked, len(diff), omitted))
        repository.omitted = ", ".join(omitted[:10]) + (" …" if len(omitted) > 10 else "")
    except FileNotFoundError:
        repository.problem = "git is not installed"
    except (OSError, subprocess.SubprocessError) as error:
        repository.problem = f"git did not answer: {error}"
    return repository


# Plain text, whatever the configuration of the user says; no program is run for any file.
_DIFF = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
_NO_OUTPUT = (".", ":(exclude,glob)**/output__*/**", ":(exclude,glob)**/.output__*.lock")
_ALL = ("--", ".", *(f":(exclude,glob)**/{pattern}" for pattern in SECRET_FILES))


class _Git:
    """Runs git in a folder, all of it within a time."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._command = ["git", *_SAFE, "-C", str(folder)]
        self._deadline = time.monotonic() + seconds
        self._environment = {k: v for k, v in os.environ.items() if k not in _LOCATIONS}
        self._environment |= {
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_PAGER": "cat",
            "LC_ALL": "C",
        }

    def text(self, *arguments: str) -> str:
        """Return what a command prints; nothing if it fails."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(0.1, self._deadline - time.monotonic()),
            check=False,
        )
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""

    def line(self, *arguments: str) -> str:
        """Return what a command prints, on one line."""
        return self.text(*arguments).strip()

    def start(self, *arguments: str) -> tuple[str, bool]:
        """Return the start of what a command prints, and whether that is all."""
        with subprocess.Popen(
            [*self._command, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            timer = threading.Timer(max(0.1, self._deadline - time.monotonic()), process.kill)
            timer.start()
            data = process.stdout.read(LARGEST_DIFF + 1)
            timer.cancel()
            process.kill()
        if len(data) <= LARGEST_DIFF:
            return data.decode("utf-8", "replace"), True
        whole = data[: data.rfind(b"\n", 0, LARGEST_DIFF) + 1]
        return whole.decode("utf-8", "replace"), False


def _sources(top: Path, names: Sequence[str], size: int, omitted: list[str]) -> Iterator[str]:
    """Yield the parts of a diff that add untracked source files; note those left out."""
    for name in names:
        if not name.endswith(SOURCES):
            continue
        text = _read_source(top / name)
        part = "".join(_added(name, text)) if text is not None else ""
        if text is None or size + len(part) > LARGEST_DIFF:
            omitted.append(name)
        else:
            size += len(part)
            yield part


def _may_hold_secrets(path: Path) -> bool:
    return any(path.match(pattern) for pattern in SECRET_FILES)


def _read_source(path: Path) -> str | None:
    try:
        if _may_hold_secrets(path) or path.is_symlink() or not path.is_file():
            return None
        if path.stat().st_size > LARGEST_FILE:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _added(name: str, text: str) -> Iterator[str]:
    """Yield the lines of a diff that adds a file."""
    lines = text.split("\n")
    ends = lines[-1] == ""
    lines = lines[:-1] if ends else lines
    yield f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    if not lines:
        return
    yield f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n"
    yield from (f"+{line}\n" for line in lines)
    if not ends:
        yield "\\ No newline at end of file\n"


def without_login(url: str) -> str:
    """Return the address of a repository without a user and a password: tokens are put there."""
    parts = urlsplit(url) if "://" in url else None
    if parts is None or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
