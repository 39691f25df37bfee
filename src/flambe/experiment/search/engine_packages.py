"""The packages that searchers and schedulers of Ray Tune import: extras of flambe."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from importlib import metadata

from packaging.requirements import Requirement

from flambe.errors import listed
from flambe.packaging.extras import extra_of_engine, requirements_of


def missing_packages(target: object) -> list[Requirement]:
    """Return what an engine needs and is not installed, or in a version that it does not take."""
    classes = inspect.getmro(target) if inspect.isclass(target) else ()
    extras = {extra_of_engine(cls.__module__) for cls in classes} - {""}
    return [each for extra in extras for each in requirements_of(extra) if not _is_met(each)]


def describe(missing: Sequence[Requirement]) -> str:
    """Return what is missing, for people: ``hyperopt, which is not installed here``."""
    absent = [each.name for each in missing if not _version(each.name)]
    others = [
        f"{each.name}{each.specifier} ({_version(each.name)} is installed here)"
        for each in missing
        if _version(each.name)
    ]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        others.insert(0, f"{listed(absent)}, which {verb} not installed here")
    return "; and ".join(others)


def install_command(missing: Sequence[Requirement]) -> str:
    """Return the command that installs what is missing."""
    return shlex.join(["pip", "install", *(f"{each.name}{each.specifier}" for each in missing)])


def _is_met(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return bool(version) and requirement.specifier.contains(version, prereleases=True)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
