"""flambe: experiments described in YAML that run on a laptop and, unchanged, on a cluster.

Importing the package costs nothing: its names are loaded when they are used.
"""

from typing import TYPE_CHECKING, Any

from flambe._version import __version__

if TYPE_CHECKING:
    from flambe.compile import Component, Schema
    from flambe.compile.persistence import load, save
    from flambe.compile.state.pickled import trust
    from flambe.logging import log

__all__ = ["Component", "Schema", "__version__", "load", "log", "save", "trust"]


def __getattr__(name: str) -> Any:
    if name in ("Component", "Schema"):
        from flambe import compile  # noqa: A004 (the package of that name)

        return getattr(compile, name)
    if name in ("load", "save"):
        from flambe.compile import persistence

        return getattr(persistence, name)
    if name == "trust":
        from flambe.compile.state.pickled import trust

        return trust
    if name == "log":
        from flambe.logging import log

        return log
    raise AttributeError(f"module 'flambe' has no attribute {name!r}")
