"""The packages that components come from, with their versions: a reason to run them again.

Of a component these are the packages of its class, of its bases, and of what its code imports. A
version is the public one: ``2.9.0`` of ``2.9.0+cpu``, because the build for a GPU is the same
version. Of a package whose source is read, ``.dev3`` does not count either: the source tells more.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from flambe.compile import Schema
from flambe.compile.component import component_class
from flambe.compile.registry import CLASSES
from flambe.compile.values import walk
from flambe.experiment.variants.fingerprint import Sources
from flambe.packaging.wheel import distribution_of


def packages_of(pipeline: Mapping[str, object], sources: Sources) -> dict[str, dict[str, str]]:
    """Return the packages that the components of a pipeline come from.

    Parameters
    ----------
    pipeline
        Stage → blueprint.
    sources
        The code of extensions and of the user.

    Returns
    -------
    dict
        Target of a blueprint → package → version.
    """
    targets = {
        schema.target
        for _, schema in walk(dict(pipeline))
        if isinstance(schema, Schema) and schema.target
    }
    return {target: _packages(target, sources) for target in sorted(targets)}


def _packages(target: str, sources: Sources) -> dict[str, str]:
    versions: dict[str, str] = {}
    for module in sorted({*_modules_of_class(target), *sources.imports(target)}):
        if module in sys.stdlib_module_names:
            continue
        name, version = _distribution(module)
        if name:
            is_read = sources.counts(module)
            versions[name] = _public(version, is_read=is_read)
    return versions


def _modules_of_class(target: str) -> Iterator[str]:
    """Yield the top-level modules of what a target names, and of its bases."""
    yield target.partition(":")[0].partition(".")[0]
    with contextlib.suppress(Exception):  # it cannot be imported: reported where it is built
        imported = CLASSES.import_target(target)
        owner = imported if inspect.isclass(imported) else component_class(imported)
        for base in getattr(owner, "__mro__", ()):
            yield base.__module__.partition(".")[0]


def _distribution(module: str) -> tuple[str, str]:
    """Return the name and the version of the distribution of a top-level module; empty if none."""
    # The name is mostly that of the module: looking through all distributions takes longer.
    for find in (lambda: [module], lambda: _names(module)):
        for name in find():
            with contextlib.suppress(metadata.PackageNotFoundError, ValueError):
                return canonicalize_name(name), metadata.version(name)
    return "", ""


def _names(module: str) -> tuple[str, ...]:
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        if name := distribution_of(module):
            return (name,)
    return ()


def _public(version: str, *, is_read: bool) -> str:
    try:
        parsed = Version(version)
    except InvalidVersion:
        return version
    return parsed.base_version if is_read else parsed.public
