"""Which versions are installed here, so that hosts get the same."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flambe.errors import ConfigError, Problem


@dataclass(frozen=True)
class Closure:
    """What some distributions need, all the way down, as it is installed here.

    Attributes
    ----------
    wanted
        The requirements of the distributions themselves, as they write them.
    versions
        Name → version of everything that is reached, without local labels such as ``+cpu``.
    """

    wanted: tuple[str, ...]
    versions: dict[str, str]


def closure(roots: Iterable[str]) -> Closure:
    """Return what distributions need; the roots themselves are left out.

    Parameters
    ----------
    roots
        Requirements without versions: ``flambe[learn]``, ``my-extension``.

    Raises
    ------
    ConfigError
        If something that is needed is not installed here.
    """
    own = [Requirement(root) for root in roots]
    names = {canonicalize_name(root.name) for root in own}
    wanted: list[str] = []
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    ahead = [(canonicalize_name(r.name), extra) for r in own for extra in ("", *sorted(r.extras))]
    while ahead:
        name, extra = ahead.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in _requirements(name, extra):
            needed = canonicalize_name(requirement.name)
            if name in names and needed not in names:
                wanted.append(_without_extra(requirement))
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                ahead += [(needed, each) for each in ("", *sorted(requirement.extras))]
                if needed not in names:
                    versions[needed] = _version(needed, name)
    return Closure(tuple(sorted(set(wanted))), dict(sorted(versions.items())))


def _requirements(name: str, extra: str) -> list[Requirement]:
    """Return the requirements that an extra adds; of no extra, those that always hold."""
    found = [Requirement(text) for text in metadata.distribution(name).requires or ()]
    return (
        [r for r in found if extra in _extras(r)] if extra else [r for r in found if not _extras(r)]
    )


def _extras(requirement: Requirement) -> set[str]:
    return set(re.findall(r"extra == ['\"]([^'\"]+)['\"]", str(requirement.marker or "")))


def _without_extra(requirement: Requirement) -> str:
    """Return a requirement that holds for the extra that was chosen."""
    text = str(requirement)
    text = re.sub(r"\s+and\s+extra == ['\"][^'\"]+['\"]", "", text)
    return re.sub(r"\s*;\s*extra == ['\"][^'\"]+['\"]\s*$", "", text)


def _version(name: str, of: str) -> str:
    try:
        # A label such as +cpu names a build, not a version.
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        raise ConfigError(
            Problem(
                f"{of} needs {name}, which is not installed here: hosts get the same versions",
                hint=f"pip install {name}",
            )
        ) from None
