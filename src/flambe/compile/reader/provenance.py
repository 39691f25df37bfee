"""Whether an extension is imported from where a file says that it comes from."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name

from flambe._distributions import direct_url_of, distributions_of
from flambe.compile.reader.extension_origins import git_source, requirement


def mismatch(name: str, origin: str, folder: str) -> str:
    """Return how an extension is imported from elsewhere than declared; nothing if it is not.

    Nothing is imported for it. If it cannot be determined, nothing is reported.

    Parameters
    ----------
    name
        The module.
    origin
        Where a file says that it comes from.
    folder
        What a relative origin is relative to; empty where the text is in no file.
    """
    path = _location(name)
    if path is None or "FLAMBE_HOST" in os.environ:  # a host has what was sent to it
        return ""
    if git_source(origin) is not None:
        return _not_of_repository(name, origin, path)
    declared = Path(folder or ".", os.path.expanduser(origin))
    if declared.is_dir():
        return _not_of_folder(name, origin, declared, path)
    if not origin.startswith((".", "/", "~")):
        return _not_of_package(name, origin, path)
    # The folder may be elsewhere; a package of another name is not the extension.
    owner = _distribution_of(name, path)
    if owner is None or _origin_of(owner) or _same(owner.name, name):
        return ""
    return (
        f"extension {name!r}: there is no folder {declared}, "
        f"but Python imports it from {_titled(owner, path)}"
    )


def _location(name: str) -> Path | None:
    """Return the file or folder that a module is imported from."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.has_location and spec.origin else None


def _not_of_folder(name: str, origin: str, declared: Path, path: Path) -> str:
    declared = declared.resolve()
    if path.is_relative_to(declared):
        return ""
    owner = _distribution_of(name, path)
    if owner is not None and _origin_of(owner) == str(declared):
        return ""  # a copy of it is installed
    message = f"extension {name!r} is declared as {origin} ({declared}), "
    message += f"but Python imports it from {path}"
    if owner is not None and not _same(owner.name, name):
        message += f" (of {_titled(owner)})"
    return message


def _not_of_package(name: str, origin: str, path: Path) -> str:
    required = requirement(origin)
    if required is None:
        return ""
    declared = f"extension {name!r} is declared as the package {origin}"
    owner = _distribution_of(name, path)
    if owner is None:
        return f"{declared}, but Python imports it from {path}"
    if not _same(owner.name, required.name):
        return f"{declared}, but Python imports it from {_titled(owner, path)}"
    if not required.specifier.contains(owner.version, prereleases=True):
        return f"{declared}, but {_titled(owner)} is installed"
    return ""


def _not_of_repository(name: str, origin: str, path: Path) -> str:
    owner = _distribution_of(name, path)
    if owner is None or "site-packages" not in path.parts:
        return ""  # a working copy
    installed, source = _origin_of(owner), git_source(origin)
    assert source is not None
    short = re.split("[/:]", source.url.rstrip("/").removesuffix(".git"))[-1]
    if _url(installed) == _url(source.url) or f"/extensions/{short}-" in installed:
        return ""
    where = f", installed from {installed}" if installed else ""
    message = f"extension {name!r} is declared as {origin}, but Python imports it from "
    return f"{message}{_titled(owner, path)}{where}"


def _url(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")


def _distribution_of(name: str, path: Path) -> metadata.Distribution | None:
    """Return the distribution that installed a module, if one did."""
    with contextlib.suppress(metadata.PackageNotFoundError):  # mostly it has the same name
        owner = metadata.distribution(name)
        if _installed(owner, name, path) or _linked(owner, path):
            return owner
    for owner in metadata.distributions():  # an editable install does not list its modules
        if _linked(owner, path) and owner.name != "flambe":
            return owner
    return next((one for one in distributions_of(name) if _installed(one, name, path)), None)


def _installed(owner: metadata.Distribution, name: str, path: Path) -> bool:
    installed = Path(str(owner.locate_file(name))).resolve()
    return path in (installed, installed.with_suffix(".py"))


def _linked(owner: metadata.Distribution, path: Path) -> bool:
    """Whether a module is in the folder of an editable install."""
    origin = _origin_of(owner)
    if not origin.startswith("/") or not path.is_relative_to(origin):
        return False
    # An environment may be inside the checkout of a project.
    return not path.is_relative_to(Path(str(owner.locate_file(""))).resolve())


def _origin_of(owner: metadata.Distribution) -> str:
    """Return the folder or the URL that a distribution was installed from, if it was not an index.

    See PEP 610.
    """
    try:
        url = str(json.loads(direct_url_of(owner) or "{}").get("url", ""))
    except ValueError:
        return ""
    parts = urlsplit(url)
    return str(Path(unquote(parts.path)).resolve()) if parts.scheme == "file" else url


def _titled(owner: metadata.Distribution, path: Path | None = None) -> str:
    return f"{owner.name} {owner.version}" + (f" ({path})" if path is not None else "")


def _same(first: str, second: str) -> bool:
    return canonicalize_name(first) == canonicalize_name(second)
