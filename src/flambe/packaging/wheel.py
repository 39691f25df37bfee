"""Wheels of the code that runs here, built from a source tree or repacked from an installation.

Equal code gives equal bytes, and a wheel is identified by the hash of the files in it.
"""

from __future__ import annotations

import csv
import functools
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

from flambe._distributions import direct_url_of, distributions_of
from flambe._files import private_folder, replacing
from flambe._process import quote_tail
from flambe.errors import ConfigError, Problem
from flambe.logging.console import home_folder
from flambe.packaging import own_name
from flambe.remote.agent import record

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
        The hash of the wheel file.
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
        If it cannot be built: with the end of the build's output.
    """
    distribution = metadata.distribution(name)
    tree = editable_tree(distribution)
    folder = home_folder("wheels")
    return _build_cached(tree, folder) if tree is not None else repack(distribution, folder)


def editable_tree(distribution: metadata.Distribution) -> Path | None:
    """Return the source tree of an editable installation, or None."""
    direct_url = json.loads(direct_url_of(distribution) or "{}")
    if not direct_url.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(direct_url["url"]).path))


def distribution_of(module: str) -> str | None:
    """Return the name of the distribution that a top-level module was installed from, or None."""
    return _distribution_of(module, tuple(sys.path))


@functools.lru_cache(maxsize=64)
def _distribution_of(module: str, path: tuple[str, ...]) -> str | None:
    """See :func:`distribution_of`; the metadata of all that is installed on a path is read."""
    if owners := distributions_of(module):
        return str(owners[0].metadata["Name"])
    # The files of an editable installation are not listed in its RECORD.
    locations = list(_locations(module))
    trees = {
        tree: str(distribution.metadata["Name"])
        for distribution in metadata.distributions()
        if (tree := editable_tree(distribution)) is not None
        and any(location.is_relative_to(tree) for location in locations)
    }
    # A tree may contain another one, as that of flambe contains examples.
    return trees[max(trees, key=lambda tree: len(tree.parts))] if trees else None


def _locations(module: str) -> Iterator[Path]:
    """Yield the file and the folders that a top-level module is imported from."""
    spec = importlib.util.find_spec(module)
    if spec is not None:
        if spec.origin:
            yield Path(spec.origin)
        yield from map(Path, spec.submodule_search_locations or ())


# -- built from a source tree -------------------------------------------------------------------


def _build_cached(tree: Path, folder: Path) -> Wheel:
    """Build the wheel of a tree, uncommitted changes included; once for each state of it."""
    cache = folder / _tree_state(tree)
    if not list(cache.glob("*.whl")):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            path = build(tree, Path(scratch))
            path.chmod(0o600)
            os.replace(path, private_folder(cache) / path.name)
    (path,) = cache.glob("*.whl")
    wheel = read(path)
    _refuse_missing(tree, wheel)
    return wheel


def build(tree: Path, folder: Path) -> Path:
    """Build the wheel of a source tree into a folder.

    Raises
    ------
    ConfigError
        If the build fails: with the end of its output.
    """
    # A copy: builds leave files behind, which setuptools would package the next time.
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "tree")
        shutil.copytree(tree, copy, ignore=_left_out, symlinks=True)
        command = [sys.executable, "-m", "uv", "build", "--wheel", "--no-config", "--quiet"]
        command += ["--out-dir", str(folder), str(copy)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
        stderr = ""
        no_flambe = Path(scratch, "build-constraints.txt")
        no_flambe.write_text(own_name.no_flambe(), encoding="utf-8")
        isolated = ["--system-certs", "--build-constraints", str(no_flambe)]
        # First with the build tools that are installed here: an isolated build needs an index.
        for options in (["--no-build-isolation", "--offline"], isolated):
            done = subprocess.run(
                [*command, *options],
                env={**environment, "VIRTUAL_ENV": sys.prefix},
                capture_output=True,
                text=True,
                check=False,
                timeout=DEADLINE,
            )
            if done.returncode == 0:
                (path,) = folder.glob("*.whl")
                return path
            stderr = done.stderr
    raise ConfigError(f"the wheel of {tree} cannot be built:{quote_tail(stderr)}")


_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "venv", "__pycache__", "*.pyc", ".*_cache", "flambe-output", "build", "dist",
    "*.egg-info", "node_modules", ".hypothesis",
)  # fmt: skip


def _left_out(parent: str, names: list[str]) -> set[str]:
    """Return what of a folder is not source: an environment of Python is not, whatever its name."""
    environments = {
        name for name in names if os.path.exists(os.path.join(parent, name, "pyvenv.cfg"))
    }
    return _LEFT_OUT(parent, names) | environments


def _tree_state(tree: Path) -> str:
    """Return a hash of the names, sizes and times of a tree's files: quick, and never stale."""
    digest = hashlib.sha256(str(tree).encode())
    for parent, folders, names in os.walk(tree):
        left_out = _left_out(parent, [*folders, *names])
        folders[:] = sorted(set(folders) - left_out)
        for name in sorted(set(names) - left_out):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _refuse_missing(tree: Path, wheel: Wheel) -> None:
    """Check that every module that can be imported here is in the wheel too."""
    with zipfile.ZipFile(wheel.path) as archive:
        inside = set(archive.namelist())
    packages = {name.partition("/")[0] for name in inside if name.endswith("/__init__.py")}
    for base in (tree / "src", tree):
        for package in packages:
            if (base / package).is_dir():
                here = {str(p.relative_to(base)) for p in (base / package).rglob("*.py")}
                if missing := sorted(here - inside):
                    raise ConfigError(
                        Problem(
                            f"{missing[0]} can be imported here, and is not in the wheel of {tree}",
                            hint="if .gitignore excludes it, remove the file or include it",
                        )
                    )
                packages = packages - {package}


# -- repacked from an installation --------------------------------------------------------------


def repack(distribution: metadata.Distribution, folder: Path) -> Wheel:
    """Pack an installed distribution into a wheel again, from its RECORD.

    Raises
    ------
    ConfigError
        If it has no RECORD.
    """
    text = distribution.read_text("RECORD")
    name, version = distribution.metadata["Name"], distribution.version
    if text is None:
        raise ConfigError(
            Problem(
                f"{name} {version} was installed without a RECORD, so it cannot be shipped",
                hint=f"install it with pip: pip install --force-reinstall {name}=={version}",
            )
        )
    key = hashlib.sha256("\n".join(sorted(text.splitlines())).encode()).hexdigest()[:16]
    tags = _tags(distribution.read_text("WHEEL") or "")
    path = folder / key / f"{name.replace('-', '_').replace('.', '_')}-{version}-{tags}.whl"
    if not path.exists():
        private_folder(path.parent)
        with replacing(path) as part:
            _pack(distribution, text, part)
            part.chmod(0o600)
    return read(path)


def is_pure(distribution: metadata.Distribution) -> bool:
    """Whether an installed distribution has no compiled parts, so that it runs on any platform."""
    tags = _tags(distribution.read_text("WHEEL") or "")
    return tags.endswith("-none-any") and tags.startswith(("py3", "py2.py3"))


def _tags(text: str) -> str:
    """Return the compressed tags of a WHEEL file, as a file name has them."""
    tags = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Tag:")]
    parts = [tag.split("-") for tag in tags] or [["py3", "none", "any"]]
    return "-".join(".".join(dict.fromkeys(column)) for column in zip(*parts, strict=True))


def _pack(distribution: metadata.Distribution, text: str, target: Path) -> None:
    """Write the files of a RECORD into a wheel, with a RECORD of their content as it is now."""
    rows: list[tuple[str, str, str]] = []
    names = [row[0] for row in csv.reader(io.StringIO(text)) if row]
    info = next((name.partition("/")[0] for name in sorted(names) if ".dist-info/" in name), "")
    with zipfile.ZipFile(target, "w") as archive:
        for name, _ in record.read_rows(io.StringIO(text)):
            content = Path(str(distribution.locate_file(name))).read_bytes()
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
            rows.append((name, f"sha256={record.encode_sha256(content)}", str(len(content))))
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", _DATE), out.getvalue())


# -- reading ------------------------------------------------------------------------------------


def read(path: Path) -> Wheel:
    """Return the name, the version and the hashes of a wheel."""
    name, version = path.name.split("-")[:2]
    with zipfile.ZipFile(path) as archive:
        (member,) = (n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
        text = archive.read(member).decode()
    content = record.hash_files(record.read_rows(io.StringIO(text)))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(canonicalize_name(name), version, path, sha256, content)
