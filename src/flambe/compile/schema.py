"""Blueprints that construct what they describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flambe.compile.build import Builder
from flambe.compile.registry import CLASSES, tag_of
from flambe.compile.values import Blueprint


@dataclass(eq=False)
class Schema(Blueprint):
    """A blueprint of an object: what to call, and with what.

    Calling it constructs the object, with everything below it. Two schemas are equal when they
    would be written the same.

    Parameters
    ----------
    target
        The class or function to call, or where to import it from (``"package.module:Class"``,
        ``"package.module:Class.factory"``).
    args, kwargs
        Its arguments: scalars, lists, mappings, links, options and schemas.
    tag
        How it is written in YAML, without the ``!``.
    place
        Where it was written.
    """

    @classmethod
    def of(cls, target: Callable[..., object], /, *args: object, **kwargs: object) -> Schema:
        """Make the blueprint of a class or factory in Python."""
        return cls(CLASSES.locate(target), tag_of(target), list(args), kwargs)

    def __call__(self, **overrides: object) -> Any:
        """Construct the object.

        Parameters
        ----------
        overrides
            Keyword arguments that replace those of the blueprint.

        Raises
        ------
        ComponentError
            If the object, or one below it, raises while it is built.
        ConfigError
            If a link leads out of the blueprint, or an option is left in it.
        """
        changed = dataclasses.replace(self, kwargs={**self.kwargs, **overrides})
        return Builder({}).build(changed, ())
