"""The bases that make a class a tag by being defined."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeGuard, TypeVar

from flambe.compile import workspace
from flambe.compile.registry import register

R = TypeVar("R", bound="Registered")


class Registered:
    """Base of all classes that are tags by being defined.

    What a constructor is called with is kept, so that an object that was made in Python can be
    written as YAML too.
    """

    _flambe_reads_yaml: ClassVar[bool] = False
    _flambe_aliases: ClassVar[list[str]]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(names := cls.__dict__.get("_transient"), str):
            raise TypeError(f"{cls.__name__}._transient takes several names: write ({names!r},)")
        register(cls)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapper(self: object, *args: object, **kwargs: object) -> None:
        # Only the outermost constructor sees what the object was made with. The instance's
        # dictionary is used, for a torch.nn.Module takes no attributes before its own __init__.
        workspace.give(self)
        if "_flambe_arguments" not in vars(self):
            try:
                bound = inspect.signature(init).bind(self, *args, **kwargs).arguments
            except TypeError:
                bound = {}
            vars(self)["_flambe_arguments"] = dict(list(bound.items())[1:])
        init(self, *args, **kwargs)

    return wrapper


class Registrable(Registered):
    """A class that reads and writes its own YAML.

    The node may be a scalar, a list or a mapping; tags inside it are built.

    Examples
    --------
    >>> class Version(Registrable):
    ...     def __init__(self, major, minor):
    ...         self.parts = major, minor
    ...     @classmethod
    ...     def from_yaml(cls, value):            # !Version 1.2
    ...         return cls(*str(value).split("."))
    ...     def to_yaml(self):
    ...         return ".".join(self.parts)
    """

    _flambe_reads_yaml: ClassVar[bool] = True

    @classmethod
    def from_yaml(cls: type[R], value: Any) -> R:
        """Make the object from the content of its node."""
        raise NotImplementedError(f"{cls.__name__} must implement from_yaml(value)")

    def to_yaml(self) -> object:
        """Return the content of the node: a scalar, a list or a mapping."""
        raise NotImplementedError(f"{type(self).__name__} must implement to_yaml()")


def reads_yaml(target: object) -> TypeGuard[type[Registrable]]:
    """Whether what a tag calls takes the content of its node, whatever that is."""
    return bool(getattr(target, "_flambe_reads_yaml", False))


class MappedRegistrable(Registrable):
    """A class whose keywords are loaded as they are read, with no delayed construction."""

    _flambe_reads_yaml: ClassVar[bool] = False

    @classmethod
    def from_yaml(cls: type[R], value: Mapping[str, Any]) -> R:
        """Call the constructor with the mapping."""
        return cls(**value)

    def to_yaml(self) -> Mapping[str, Any]:
        """Return the keywords that the object was made with."""
        arguments: Mapping[str, Any] = vars(self).get("_flambe_arguments", {})
        return arguments
