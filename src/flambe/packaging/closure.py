"""The versions of dependencies that are installed here, so that hosts get the same."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flambe.errors import ConfigError, Problem
from flambe.packaging import own_name

_EXTRA = re.compile(r"\bextra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Closure:
    """The dependencies of some distributions, direct and indirect, as they are installed here.

    Attributes
    ----------
    requirements
        The direct requirements, as the distributions declare them.
    versions
        Name → version of every dependency, without local labels such as ``+cpu``.
    """

    requirements: tuple[str, ...]
    versions: dict[str, str]


def compute_closure(roots: Iterable[str]) -> Closure:
    """Return the dependencies of distributions; the roots themselves are left out.

    Parameters
    ----------
    roots
        Requirements without versions: ``flambe[learn]``, ``my-extension``.

    Raises
    ------
    ConfigError
        If a dependency is not installed here, or is the ``flambe`` of another project.
    """
    roots = list(roots)
    names = {canonicalize_name(Requirement(root).name) for root in roots}
    direct: list[str] = []
    versions: dict[str, str] = {}
    for of, extra, requirement in _walk(roots, installed_requirements):
        needed = canonicalize_name(requirement.name)
        if own_name.is_flambe(requirement) and _holds(requirement, extra):
            _refuse_other_flambe(of, requirement, is_root=of in names)
        if needed in names:
            continue
        if of in names:
            direct.append(_without_extra(requirement))
        if _holds(requirement, extra):
            versions[needed] = _version(needed, of)
    return Closure(tuple(sorted(set(direct))), dict(sorted(versions.items())))


def _refuse_other_flambe(of: str, requirement: Requirement, *, is_root: bool) -> None:
    if reason := own_name.unmet_reason(requirement):
        raise ConfigError(Problem(f"{of} requires {reason}", hint=own_name.WHY))
    if not is_root:
        # Hosts install it from an index, and would resolve its requirements there.
        text = f"{of} requires flambe, and is not an extension: hosts would get it from an index"
        raise ConfigError(Problem(text, hint=f"declare it as an extension; {own_name.WHY}"))


def required_by(
    roots: Iterable[str],
    requirements_of: Callable[[str], Sequence[str]],
    markers: Mapping[str, str],
) -> dict[str, str]:
    """Return the dependencies of distributions on another host: name → which one requires it.

    Parameters
    ----------
    roots
        As in :func:`compute_closure`.
    requirements_of
        Returns the requirements of a distribution on that host.
    markers
        The variables of environment markers there; see :func:`marker_environment`.
    """
    return {
        canonicalize_name(requirement.name): of
        for of, extra, requirement in _walk(roots, requirements_of, markers)
        if _holds(requirement, extra, markers)
    }


def marker_environment(python: str, platform: str) -> dict[str, str]:
    """Return the variables of environment markers for a CPython on Linux.

    Parameters
    ----------
    python
        Its version, to the patch.
    platform
        As hosts report it: ``linux-x86_64``.
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


def installed_requirements(name: str) -> list[str]:
    """Return the requirements of a distribution that is installed here."""
    return metadata.distribution(name).requires or []


def _walk(
    roots: Iterable[str],
    requirements_of: Callable[[str], Sequence[str]],
    markers: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, str, Requirement]]:
    """Yield each requirement, with the distribution and the extra that declare it."""
    seen: set[tuple[str, str]] = set()
    pending = [pair for root in roots for pair in _nodes(Requirement(root))]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in _select(requirements_of(name), extra):
            yield name, extra, requirement
            if _holds(requirement, extra, markers):
                pending += _nodes(requirement)


def _nodes(requirement: Requirement) -> list[tuple[str, str]]:
    """Return what a requirement asks for: its distribution without extras, and with each."""
    name = canonicalize_name(requirement.name)
    return [(name, extra) for extra in ("", *sorted(requirement.extras))]


def _holds(requirement: Requirement, extra: str, markers: Mapping[str, str] | None = None) -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate({**(markers or {}), "extra": extra})


def _select(texts: Sequence[str], extra: str) -> list[Requirement]:
    """Return the requirements that an extra adds; without an extra, those that always apply."""
    # Most are those of extras that nobody asked for: to parse them takes longest.
    chosen = [text for text in texts if (extra in names if (names := _extras(text)) else not extra)]
    return [Requirement(text) for text in chosen]


def _extras(text: str) -> list[str]:
    """Return the extras that a requirement belongs to."""
    return _EXTRA.findall(text.partition(";")[2])


def _without_extra(requirement: Requirement) -> str:
    """Return a requirement without the condition that an extra was chosen."""
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


@functools.lru_cache(maxsize=8)
def installed_versions(roots: tuple[str, ...]) -> Mapping[str, str]:
    """Return the versions of distributions and of all that they need, labels such as ``+cpu`` too.

    Parameters
    ----------
    roots
        As in :func:`compute_closure`; what is not installed is left out.
    """
    versions: dict[str, str] = {}
    requirements: dict[str, Sequence[str]] = {}

    def requirements_of(name: str) -> Sequence[str]:
        if name not in requirements:
            requirements[name] = ()
            with contextlib.suppress(metadata.PackageNotFoundError):
                described = metadata.distribution(name).metadata  # parsed again each time
                versions[name] = described["Version"]
                requirements[name] = described.get_all("Requires-Dist") or ()
        return requirements[name]

    for _ in _walk(roots, requirements_of):
        pass
    return dict(sorted(versions.items()))
