"""Public names of a package that are imported at first use, so that importing it stays cheap."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module-level ``__getattr__`` (PEP 562) that imports names on first access.

    Parameters
    ----------
    package
        The ``__name__`` of the package.
    modules
        For each public name, the module that defines it, relative to the package:
        ``{"Trainer": "trainer"}``.
    """

    def __getattr__(name: str) -> object:  # noqa: N807 (a module's own hook)
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
