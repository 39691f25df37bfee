"""flambe: experiments described in YAML that run on a laptop and, unchanged, on a cluster.

Importing the package costs nothing: its names are loaded when they are used.
"""

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports
from flambe._version import __version__

if TYPE_CHECKING:
    from flambe.compile import Component, Schema
    from flambe.compile.persistence import load, save
    from flambe.compile.state.pickled import trust
    from flambe.logging import log

__all__ = ["Component", "Schema", "__version__", "load", "log", "save", "trust"]


__getattr__ = lazy_exports(
    __name__,
    {
        "Component": "compile",
        "Schema": "compile",
        "load": "compile.persistence",
        "log": "logging",
        "save": "compile.persistence",
        "trust": "compile.state.pickled",
    },
)
