"""Which versions are installed here, so that hosts get the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flambe.errors import ConfigError, Problem
from flambe.packaging import own_name


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
        If something that is needed is not installed here, or is another project's flambe.
    """
    roots = list(roots)
    names = {canonicalize_name(Requirement(root).name) for root in roots}
    wanted: list[str] = []
    versions: dict[str, str] = {}
    for of, extra, requirement in _walk(roots, installed):
        needed = canonicalize_name(requirement.name)
        if own_name.is_ours(requirement) and _holds(requirement, extra):
            _refuse_other_flambe(of, requirement, is_root=of in names)
        if needed in names:
            continue
        if of in names:
            wanted.append(_without_extra(requirement))
        if _holds(requirement, extra):
            versions[needed] = _version(needed, of)
    return Closure(tuple(sorted(set(wanted))), dict(sorted(versions.items())))


def _refuse_other_flambe(of: str, requirement: Requirement, *, is_root: bool) -> None:
    if what := own_name.unmet(requirement):
        raise ConfigError(Problem(f"{of} requires {what}", hint=own_name.WHY))
    if not is_root:
        # Hosts get it from an index, which would be asked for what it requires.
        text = f"{of} requires flambe, and is not an extension: hosts would get it from an index"
        raise ConfigError(Problem(text, hint=f"declare it as an extension; {own_name.WHY}"))


def needs(
    roots: Iterable[str], requires: Callable[[str], Sequence[str]], markers: Mapping[str, str]
) -> dict[str, str]:
    """Return what distributions need elsewhere, all the way down: name → which one needs it.

    Parameters
    ----------
    roots
        As in :func:`closure`.
    requires
        Returns the requirements of a distribution there.
    markers
        The variables of environment markers there; see :func:`markers_of`.
    """
    return {
        canonicalize_name(requirement.name): of
        for of, extra, requirement in _walk(roots, requires, markers)
        if _holds(requirement, extra, markers)
    }


def markers_of(python: str, platform: str) -> dict[str, str]:
    """Return the variables of environment markers for a CPython on Linux.

    Parameters
    ----------
    python
        Its version, to the patch.
    platform
        As hosts tell it: ``linux-x86_64``.
    """
    system, _, machine = platform.partition("-")
    return {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_version": python,
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": machine,
    }


def installed(name: str) -> list[str]:
    """Return the requirements of a distribution that is installed here."""
    return metadata.distribution(name).requires or []


def _walk(
    roots: Iterable[str],
    requires: Callable[[str], Sequence[str]],
    markers: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, str, Requirement]]:
    """Yield each requirement that is reached, with the distribution and the extra that has it."""
    own = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    ahead = [(canonicalize_name(r.name), extra) for r in own for extra in ("", *sorted(r.extras))]
    while ahead:
        name, extra = ahead.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in _requirements(requires(name), extra):
            yield name, extra, requirement
            if _holds(requirement, extra, markers):
                needed = canonicalize_name(requirement.name)
                ahead += [(needed, each) for each in ("", *sorted(requirement.extras))]


def _holds(requirement: Requirement, extra: str, markers: Mapping[str, str] | None = None) -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate({**(markers or {}), "extra": extra})


def _requirements(texts: Sequence[str], extra: str) -> list[Requirement]:
    """Return the requirements that an extra adds; of no extra, those that always hold."""
    found = [Requirement(text) for text in texts]
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
