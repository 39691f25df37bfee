"""Which installed distributions contain a module, and what they were installed from.

The metadata of a distribution is read once, and again when its folder has changed: with a few
hundred distributions, reading all of it takes as long as reading a configuration does.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from importlib import metadata

_RECORDED = re.compile(r'^"?(\w+)(?:/|\.py\b|\.[\w.-]+\.(?:so|pyd)\b)', re.MULTILINE)


@dataclass(frozen=True)
class _Contents:
    """What is read of a distribution.

    Attributes
    ----------
    modules
        Its top-level modules; those of an editable installation are not recorded.
    direct_url
        The text of its ``direct_url.json`` (PEP 610); empty if it came from an index.
    """

    modules: frozenset[str]
    direct_url: str


def distributions_of(module: str) -> list[metadata.Distribution]:
    """Return the distributions that installed a top-level module, an editable one excepted.

    As ``metadata.packages_distributions()`` has it, which knows nothing of wheels without
    ``top_level.txt`` before Python 3.11.

    Parameters
    ----------
    module
        The name of the module.
    """
    owners: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        if module in _contents_of(distribution).modules:
            # The first of a name is the one that is imported.
            owners.setdefault(str(distribution.metadata["Name"]), distribution)
    return list(owners.values())


def direct_url_of(distribution: metadata.Distribution) -> str:
    """Return the text of a distribution's ``direct_url.json`` (PEP 610); empty if it has none."""
    return _contents_of(distribution).direct_url


def _contents_of(distribution: metadata.Distribution) -> _Contents:
    path = str(getattr(distribution, "_path", ""))
    try:
        return _contents_at(path, os.stat(path).st_mtime_ns)
    except OSError:  # it is in an archive, or something else found it
        return _read(distribution)


@functools.lru_cache(maxsize=4096)
def _contents_at(path: str, changed: int) -> _Contents:
    return _read(metadata.Distribution.at(path))


def _read(distribution: metadata.Distribution) -> _Contents:
    declared = distribution.read_text("top_level.txt")
    return _Contents(
        frozenset(
            declared.split()
            if declared
            else _RECORDED.findall(distribution.read_text("RECORD") or "")
        ),
        distribution.read_text("direct_url.json") or "",
    )
