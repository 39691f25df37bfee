"""The name ``flambe``: on PyPI it belongs to another project, which must never be installed.

Whoever requires ``flambe`` means the one that runs, in its version, or is refused with the reason.
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
# The first pip that knows constraints of what builds need.
_BUILD_CONSTRAINTS = Version("25.3")


def is_ours(required: Requirement) -> bool:
    """Whether a requirement is of flambe."""
    return canonicalize_name(required.name) == NAME


def unmet(required: Requirement) -> str:
    """Return why a requirement of flambe is not met by the one that runs; nothing if it is."""
    version = _installed() or __version__
    if required.url is None and required.specifier.contains(version, prereleases=True):
        return ""
    return f"{required}, and this is flambe {version}"


def constraints(folder: Path) -> list[str]:
    """Return options of ``pip install`` by which it never fetches a flambe.

    Parameters
    ----------
    folder
        Where files are written for it.
    """
    ours, builds = folder / "constraints.txt", folder / "build-constraints.txt"
    # What is installed meets that, and nothing else does.
    ours.write_text(f"{NAME}=={_installed()}\n" if _installed() else none_of_it(), encoding="utf-8")
    builds.write_text(none_of_it(), encoding="utf-8")
    options = [f"--constraint={ours}"]
    if Version(metadata.version("pip")) >= _BUILD_CONSTRAINTS:
        options.append(f"--build-constraint={builds}")
    return options


def none_of_it() -> str:
    """Return a constraint that no flambe meets: builds happen where ours is not installed."""
    return f"{NAME}<0\n"


def refusal(output: str) -> str:
    """Return which requirement of flambe an installation failed by, of what pip said, if one."""
    if "(constraint) flambe" not in output:
        return ""
    match = re.search(r"(?:depends on|requested) (flambe\b[^\n]*)", output)
    return f"it requires {match[1].strip() if match else NAME}, and this is flambe {__version__}"


def _installed() -> str:
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return ""
