"""The classes that tags name, and the extensions that may be imported for them.

A class is registered by being defined, in the one :data:`CLASSES` of the process: Python has one
class of a module and a name, so there is one tag for it. Which extensions are declared is another
matter; see :func:`extensions`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

C = TypeVar("C", bound=type[object])


@dataclass
class ClassRegistry:
    """Tags of the classes that were defined in this process."""

    by_tag: dict[str, list[type[object]]] = field(default_factory=dict)
    # Import path → what no import finds again: a class or a factory made inside a function.
    _unimportable: dict[str, object] = field(default_factory=dict)

    def add(self, tag: str, cls: type[object]) -> None:
        """Register a class; one that is defined again (a notebook cell, a reload) replaces it."""
        classes = self.by_tag.setdefault(tag, [])
        path = import_path(cls)
        classes[:] = [other for other in classes if import_path(other) != path]
        classes.append(cls)

    def tagged(self, tag: str) -> list[type[object]]:
        """Return the classes that have a tag."""
        return self.by_tag.get(tag, [])

    def import_target(self, path: str) -> object:
        """Import what :func:`import_path` named."""
        if path in self._unimportable:
            return self._unimportable[path]
        module, _, name = path.partition(":")
        target: object = importlib.import_module(module)
        for part in name.split("."):
            target = getattr(target, part)
        return target

    def locate(self, target: object) -> str:
        """Return the path by which :meth:`import_target` finds a class or factory again."""
        path = import_path(target)
        try:
            imported = self.import_target(path)
        except (ImportError, AttributeError, ValueError):
            imported = None
        if imported is not target and _function(imported) is not _function(target):
            self._unimportable[path] = target
        return path


CLASSES = ClassRegistry()


def _function(target: object) -> object:
    # A bound method is a new object each time that it is looked up.
    return getattr(target, "__func__", target)


@dataclass
class Extensions:
    """The extensions that a process declared: module → where it comes from.

    Attributes
    ----------
    declared
        May be imported and built. To be named in a saved component gives no such right.
    origins
        The extensions of all that was built, declared or trusted: written above what is saved.
    """

    declared: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def declare(self, extensions: Mapping[str, str]) -> None:
        """Let tags reach these extensions, in this process and in the workers of its runs."""
        self.declared.update(extensions)
        self.origins.update(extensions)


_extensions: ContextVar[Extensions] = ContextVar("flambe_extensions", default=Extensions())  # noqa: B039


def extensions() -> Extensions:
    """Return the extensions of the current context.

    It is one object for the whole process, threads included, unless :func:`using` says otherwise:
    ``flambe.load`` in a component finds what the file of its run declared.
    """
    return _extensions.get()


@contextlib.contextmanager
def using(extensions: Extensions) -> Iterator[Extensions]:
    """Use these extensions in the current context, and no others."""
    token = _extensions.set(extensions)
    try:
        yield extensions
    finally:
        _extensions.reset(token)


# -- decorators ---------------------------------------------------------------------------------


def register(cls: C, tag: str | None = None) -> C:
    """Make a class usable as a tag, its name by default."""
    CLASSES.add(tag or cls.__name__, cls)
    return cls


def alias(name: str) -> Callable[[C], C]:
    """Give a class another tag.

    Examples
    --------
    >>> @alias("mlp")
    ... class MultiLayerPerceptron(Component): ...
    """

    def decorate(cls: C) -> C:
        type.__setattr__(cls, "_flambe_aliases", [*aliases(cls), name])
        return register(cls, name)

    return decorate


def aliases(cls: object) -> list[str]:
    """Return the aliases that a class has of its own, in the order in which it was given them."""
    return list(getattr(cls, "__dict__", {}).get("_flambe_aliases") or ())


def registrable_factory(method: Any) -> Any:
    """Mark a classmethod so that ``!Class.method`` calls it."""
    # What a decorator below @classmethod is given has no type that a caller could write down.
    function: Any = method.__func__ if isinstance(method, classmethod) else method
    function._flambe_factory = True
    return method if isinstance(method, classmethod) else classmethod(method)


def is_factory(target: object) -> bool:
    """Whether a method is marked with :func:`registrable_factory`."""
    return bool(getattr(target, "_flambe_factory", False))


def factories(cls: type[object]) -> list[str]:
    """Return the names of the factories of a class."""
    return [
        name for name, method in inspect.getmembers(cls, inspect.ismethod) if is_factory(method)
    ]


# -- names ------------------------------------------------------------------------------------


def import_path(target: object) -> str:
    """Return ``"package.module:Class"`` or ``"package.module:Class.factory"``."""
    return f"{target.__module__}:{_qualified_name(target)}"


def _qualified_name(target: object) -> str:
    name: str = getattr(target, "__qualname__")  # noqa: B009 (an object may lack one)
    return name


def tag_of(target: object) -> str:
    """Return the tag that a class or a factory is written with."""
    name = _qualified_name(target)
    last = name.rpartition(".")[2]
    owner = getattr(target, "__self__", None)
    if inspect.isclass(owner):
        return f"{tag_of(owner)}.{last}"
    package = (target.__module__ or "").partition(".")[0]
    if own := aliases(target):
        return own[-1]
    if package == "torch":
        return f"torch.{name}"
    if package == "ray":
        return f"ray.{name}"
    if package == "flambe" or target in CLASSES.tagged(last):
        return last
    return f"{package}.{name}"
