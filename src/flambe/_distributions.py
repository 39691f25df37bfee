"""Which installed distributions contain a module."""

from __future__ import annotations

import re
from importlib import metadata


def distributions_of(module: str) -> list[metadata.Distribution]:
    """Return the distributions that installed a top-level module, an editable one excepted.

    As ``metadata.packages_distributions()`` has it, which reads ten times as much, and which knows
    nothing of wheels without ``top_level.txt`` before Python 3.11.

    Parameters
    ----------
    module
        The name of the module.
    """
    listed = re.compile(rf'^"?{re.escape(module)}(/|\.py\b|\.[\w.-]+\.(so|pyd)\b)', re.MULTILINE)
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        declared = distribution.read_text("top_level.txt")
        if declared:
            contains = module in declared.split()
        else:
            contains = bool(listed.search(distribution.read_text("RECORD") or ""))
        if contains:
            # The first of a name is the one that is imported.
            found.setdefault(str(distribution.metadata["Name"]), distribution)
    return list(found.values())
