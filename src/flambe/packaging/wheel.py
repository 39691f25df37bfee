"""The code that runs here, as wheels: of a source tree, or of what is installed.

Both are made so that equal code gives equal bytes, and are known by the hash of their files.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from flambe._files import private_folder
from flambe.errors import ConfigError, Problem
from flambe.logging.console import home_folder
from flambe.packaging import own_name

# What installers add to a distribution.
ADDED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
_DATE = (1980, 1, 1, 0, 0, 0)
DEADLINE = 600  # seconds for a build


@dataclass(frozen=True)
class Wheel:
    """A wheel on this machine.

    Attributes
    ----------
    name, version
        Of the distribution; the name is canonical.
    path
        The file.
    sha256
        Of the file.
    content
        The hash of the files in it: :mod:`flambe.remote.agent.verify` computes the same from what
        is installed.
    """

    name: str
    version: str
    path: Path
    sha256: str
    content: str


def wheel_of(name: str) -> Wheel:
    """Return the wheel of a distribution that is installed here, editable or not.

    Raises
    ------
    ConfigError
        If it cannot be made: with what the build said.
    """
    found = metadata.distribution(name)
    tree = editable_tree(found)
    folder = home_folder("wheels")
    return _built(tree, folder) if tree is not None else repacked(found, folder)


def editable_tree(found: metadata.Distribution) -> Path | None:
    """Return the source tree of an editable installation, or None."""
    told = json.loads(found.read_text("direct_url.json") or "{}")
    if not told.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(told["url"]).path))


def distribution_of(module: str) -> str | None:
    """Return the name of the distribution that a top-level module was installed by, if one was."""
    if known := metadata.packages_distributions().get(module):
        return known[0]
    # The files of an editable installation are listed nowhere.
    spec = importlib.util.find_spec(module)
    places = [spec.origin] if spec is not None and spec.origin else []
    if spec is not None:
        places += list(spec.submodule_search_locations or ())
    trees = {
        tree: str(found.metadata["Name"])
        for found in metadata.distributions()
        if (tree := editable_tree(found)) is not None
        and any(Path(place).is_relative_to(tree) for place in places)
    }
    # A tree may lie in another one, as examples do.
    return trees[max(trees, key=lambda tree: len(tree.parts))] if trees else None


# -- of a source tree ---------------------------------------------------------------------------


def _built(tree: Path, folder: Path) -> Wheel:
    """Build the wheel of a tree, with all that is not committed; once for each state of it."""
    key = _state(tree)
    kept = folder / key
    if not list(kept.glob("*.whl")):
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            made = build(tree, Path(beside))
            made.chmod(0o600)
            os.replace(made, private_folder(kept) / made.name)
    (path,) = kept.glob("*.whl")
    wheel = read(path)
    _refuse_missing(tree, wheel)
    return wheel


def build(tree: Path, folder: Path) -> Path:
    """Build the wheel of a source tree into a folder."""
    # A copy: builds leave files behind, and setuptools takes those for its own the next time.
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "tree")
        shutil.copytree(tree, copy, ignore=_LEFT_OUT, symlinks=True)
        command = [sys.executable, "-m", "uv", "build", "--wheel", "--no-config", "--quiet"]
        command += ["--out-dir", str(folder), str(copy)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
        said = ""
        no_flambe = Path(scratch, "build-constraints.txt")
        no_flambe.write_text(own_name.none_of_it(), encoding="utf-8")
        isolated = ["--system-certs", "--build-constraints", str(no_flambe)]
        # With the build tools that are here if they are; an isolated build needs an index.
        for extra in (["--no-build-isolation", "--offline"], isolated):
            done = subprocess.run(
                [*command, *extra],
                env={**environment, "VIRTUAL_ENV": sys.prefix},
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE,
            )
            if done.returncode == 0:
                (made,) = folder.glob("*.whl")
                return made
            said = done.stderr
    tail = "".join(f"\n  | {line}" for line in said.strip().splitlines()[-12:])
    raise ConfigError(f"the wheel of {tree} cannot be built:{tail}")


_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "venv", "__pycache__", "*.pyc", ".*_cache", "flambe-output", "build", "dist",
    "*.egg-info", "node_modules", ".hypothesis",
)  # fmt: skip


def _state(tree: Path) -> str:
    """Return a hash of the names, sizes and times of a tree's files: quick, and never stale."""
    digest = hashlib.sha256(str(tree).encode())
    for place, folders, names in os.walk(tree):
        left_out = _LEFT_OUT(place, [*folders, *names])
        folders[:] = sorted(set(folders) - left_out)
        for name in sorted(set(names) - left_out):
            path = os.path.join(place, name)
            found = os.lstat(path)
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _refuse_missing(tree: Path, wheel: Wheel) -> None:
    """See that every module that can be imported here is in the wheel too."""
    with zipfile.ZipFile(wheel.path) as opened:
        inside = set(opened.namelist())
    packages = {name.partition("/")[0] for name in inside if name.endswith("/__init__.py")}
    for base in (tree / "src", tree):
        for package in packages:
            if (base / package).is_dir():
                here = {str(p.relative_to(base)) for p in (base / package).rglob("*.py")}
                if missing := sorted(here - inside):
                    raise ConfigError(
                        Problem(
                            f"{missing[0]} can be imported here, and is not in the wheel of {tree}",
                            hint="does .gitignore leave it out? Remove it, or have it included",
                        )
                    )
                packages = packages - {package}


# -- of what is installed -----------------------------------------------------------------------


def repacked(found: metadata.Distribution, folder: Path) -> Wheel:
    """Pack an installed distribution into a wheel again, from its RECORD.

    Raises
    ------
    ConfigError
        If it has no RECORD.
    """
    record = found.read_text("RECORD")
    name, version = found.metadata["Name"], found.version
    if record is None:
        raise ConfigError(
            Problem(
                f"{name} {version} was installed without a RECORD, so that it cannot be shipped",
                hint=f"install it with pip: pip install --force-reinstall {name}=={version}",
            )
        )
    key = hashlib.sha256("\n".join(sorted(record.splitlines())).encode()).hexdigest()[:16]
    tags = _tags(found.read_text("WHEEL") or "")
    path = folder / key / f"{name.replace('-', '_').replace('.', '_')}-{version}-{tags}.whl"
    if not path.exists():
        private_folder(path.parent)
        beside = path.with_suffix(f".{os.getpid()}.part")
        _pack(found, record, beside)
        beside.chmod(0o600)
        os.replace(beside, path)
    return read(path)


def is_pure(found: metadata.Distribution) -> bool:
    """Whether an installed distribution has no compiled parts, so that it runs on any platform."""
    tags = _tags(found.read_text("WHEEL") or "")
    return tags.endswith("-none-any") and tags.startswith(("py3", "py2.py3"))


def _tags(text: str) -> str:
    tags = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:")]
    parts = [tag.split("-") for tag in tags] or [["py3", "none", "any"]]
    return "-".join(".".join(dict.fromkeys(column)) for column in zip(*parts, strict=True))


def _pack(found: metadata.Distribution, record: str, target: Path) -> None:
    rows: list[tuple[str, str, str]] = []
    info = ""
    with zipfile.ZipFile(target, "w") as opened:
        for name, *_ in sorted(row for row in csv.reader(io.StringIO(record)) if row):
            base = os.path.basename(name)
            if ".dist-info/" in name and not info:
                info = name.partition("/")[0]
            generated = name.startswith("..") or os.path.isabs(name)
            if generated or name.endswith(".pyc") or (".dist-info/" in name and base in ADDED):
                continue
            data = Path(str(found.locate_file(name))).read_bytes()
            opened.writestr(zipfile.ZipInfo(name, _DATE), data)
            rows.append((name, f"sha256={encoded(data)}", str(len(data))))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        opened.writestr(zipfile.ZipInfo(f"{info}/RECORD", _DATE), text.getvalue())


def encoded(data: bytes) -> str:
    """Return the SHA-256 of some bytes, as a RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


# -- reading ------------------------------------------------------------------------------------


def read(path: Path) -> Wheel:
    """Read what a wheel says of itself."""
    name, version = path.name.split("-")[:2]
    with zipfile.ZipFile(path) as opened:
        (record,) = (n for n in opened.namelist() if n.endswith(".dist-info/RECORD"))
        rows = sorted(row for row in csv.reader(io.StringIO(opened.read(record).decode())) if row)
    content = hashlib.sha256()
    for row in _own(rows):
        content.update(f"{row[0]},{row[1].removeprefix('sha256=')}\n".encode())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(canonicalize_name(name), version, path, sha256, content.hexdigest())


def _own(rows: list[list[str]]) -> Iterator[list[str]]:
    """Yield the rows of a RECORD that are the same wherever it is installed."""
    for row in rows:
        name = row[0]
        added = ".dist-info/" in name and os.path.basename(name) in ADDED
        if not added and not name.startswith("..") and ".data/" not in name:
            yield row
