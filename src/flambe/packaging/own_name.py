"""The name ``flambe``: on PyPI it belongs to another project, which must never be installed.

A package that requires ``flambe`` either accepts the version that runs here, or is refused with the
reason.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from flambe._version import __version__

NAME = "flambe"
WHY = "on PyPI the name flambe belongs to another project, which is never installed"
# The first pip with constraints for build requirements.
_BUILD_CONSTRAINTS = Version("25.3")


def is_flambe(requirement: Requirement) -> bool:
    """Whether a requirement names flambe."""
    return canonicalize_name(requirement.name) == NAME


def unmet_reason(requirement: Requirement) -> str:
    """Return why the flambe that runs does not meet a requirement; empty if it does."""
    version = _installed() or __version__
    if requirement.url is None and requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement}, and this is flambe {version}"


def constraints(folder: Path) -> list[str]:
    """Return options of ``pip install`` that keep it from fetching a flambe.

    Parameters
    ----------
    folder
        Where the constraint files are written.
    """
    ours, builds = folder / "constraints.txt", folder / "build-constraints.txt"
    # Only the installed version meets it.
    ours.write_text(f"{NAME}=={_installed()}\n" if _installed() else no_flambe(), encoding="utf-8")
    builds.write_text(no_flambe(), encoding="utf-8")
    options = [f"--constraint={ours}"]
    if Version(metadata.version("pip")) >= _BUILD_CONSTRAINTS:
        options.append(f"--build-constraint={builds}")
    return options


def no_flambe() -> str:
    """Return a constraint that no flambe meets: ours is not installed in build environments."""
    return f"{NAME}<0\n"


def conflict_in(output: str) -> str:
    """Return the requirement of flambe that pip could not meet, by its output; empty if none."""
    if "(constraint) flambe" not in output:
        return ""
    match = re.search(r"(?:depends on|requested) (flambe\b[^\n]*)", output)
    return f"it requires {match[1].strip() if match else NAME}, and this is flambe {__version__}"


def _installed() -> str:
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return ""
