"""Does a configuration value fit an annotation? Asked before anything is built.

A value may be a blueprint, so that checkers of built values (typeguard, pydantic) cannot be asked.
What is not understood fits.
"""

from __future__ import annotations

import collections.abc
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Union

from flambe.compile import search_spaces
from flambe.compile.values import (
    Blueprint,
    Broken,
    ClusterResource,
    Grid,
    Key,
    Link,
    Path,
    Sample,
)

_UNIONS = (Union, types.UnionType)
_SEQUENCES = (
    list,
    tuple,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Set,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
# The module of a function → its parameters that a file gives by name, where Python has an object:
# flambe.experiment.search.searcher_arguments takes the optimizer from Nevergrad's registry.
_BY_NAME: Mapping[str, Mapping[str, object]] = {
    "ray.tune.search.nevergrad.nevergrad_search": {"optimizer": str | None}
}


def hints(target: Callable[..., object]) -> Mapping[str, object]:
    """Return the annotations of a class's or function's parameters, those that can be evaluated."""
    return _hints(target)


@cache
def _hints(target: object) -> Mapping[str, object]:
    function: object = target
    if inspect.isclass(target):
        function = inspect.unwrap(target.__init__)
    function = getattr(function, "__func__", function)
    annotations = getattr(function, "__annotations__", {})
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    names = {**vars(typing), **(vars(module) if module else {})}
    result: dict[str, object] = {}
    for name, annotation in annotations.items():
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)  # noqa: PLW2901 (its own source)
            except Exception:  # a name under TYPE_CHECKING, or of a newer Python
                continue
        result[name] = annotation
    return {**result, **_BY_NAME.get(str(getattr(function, "__module__", "")), {})}


def _is_blueprint(annotation: object) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Blueprint)


def is_schema(annotation: object) -> bool:
    """Whether a parameter takes one blueprint, or something else instead."""
    return _is_blueprint(annotation) or (
        typing.get_origin(annotation) in _UNIONS
        and any(is_schema(arg) for arg in typing.get_args(annotation))
    )


def wants_schema(annotation: object) -> bool:
    """Whether a parameter asks for blueprints rather than for built objects."""
    if _is_blueprint(annotation):
        return True
    return any(wants_schema(arg) for arg in typing.get_args(annotation))


def fits(value: object, annotation: object) -> bool:
    """Whether a value, or each value that an option tries, may be passed to a parameter."""
    if annotation in (Any, inspect.Parameter.empty, object) or isinstance(value, Link | Broken):
        return True
    if isinstance(value, Grid):
        return all(fits(element, annotation) for element in value.elements)
    if isinstance(value, Sample):
        return fits(value.low, annotation) if value.whole else fits(0.5, annotation)
    if isinstance(value, Blueprint) and search_spaces.is_space(value):
        return _space_fits(value, annotation)
    if annotation is None:
        annotation = type(None)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return fits(value, args[0])
    if origin in _UNIONS:
        return any(fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return isinstance(value, Blueprint) or any(
            value == arg and isinstance(value, bool) == isinstance(arg, bool) for arg in args
        )
    if isinstance(value, Blueprint):
        return _schema_fits(value, origin or annotation)
    if value is None:
        return annotation is type(None)
    if isinstance(value, ClusterResource):
        return annotation in (ClusterResource, str)
    if origin is not None:
        return _container_fits(value, origin, args)
    return _plain_fits(value, annotation)


def _space_fits(space: Blueprint, annotation: object) -> bool:
    """Whether what a search space draws may be passed to a parameter."""
    if written := search_spaces.categories(space):
        return all(fits(category, annotation) for category in written[1])
    if search_spaces.draws_whole(space):
        return fits(1, annotation) or _has_literal(annotation)
    return not search_spaces.draws_real(space) or fits(0.5, annotation)


def _has_literal(annotation: object) -> bool:
    """Whether some values only are expected: which of them a space draws is not looked at."""
    if typing.get_origin(annotation) is typing.Literal:
        return True
    return any(map(_has_literal, typing.get_args(annotation)))


def _schema_fits(schema: Blueprint, annotation: object) -> bool:
    if not schema.target or not inspect.isclass(annotation) or _is_blueprint(annotation):
        return True
    target = schema.resolve()
    if annotation in (str, int, float, bool, list, dict, tuple):
        return inspect.isclass(target) and issubclass(target, annotation)
    if not inspect.isclass(target) or getattr(annotation, "_is_protocol", False):
        return True
    try:
        return issubclass(target, annotation) or annotation.__module__ == "collections.abc"
    except TypeError:
        return True


def _container_fits(value: object, origin: object, args: tuple[object, ...]) -> bool:
    if origin in _MAPPINGS:
        if not isinstance(value, Mapping):
            return False
        return len(args) != 2 or all(
            fits(k, args[0]) and fits(v, args[1]) for k, v in value.items()
        )
    if origin in _SEQUENCES:
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and args and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(map(fits, value, args))
        return not args or all(fits(item, args[0]) for item in value)
    return origin is not collections.abc.Callable and origin is not type


def _plain_fits(value: object, annotation: object) -> bool:
    if annotation is bool or annotation is str:
        return isinstance(value, annotation)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if _is_blueprint(annotation) or annotation is collections.abc.Callable:
        return False
    if not inspect.isclass(annotation):
        return True
    if annotation in _MAPPINGS:
        return isinstance(value, Mapping)
    if annotation in _SEQUENCES:
        return isinstance(value, list | tuple)
    if isinstance(value, str) and issubclass(annotation, os.PathLike):
        return True
    if annotation.__module__ in ("typing", "collections.abc", "numbers") or getattr(
        annotation, "_is_protocol", False
    ):
        return True
    if typing.is_typeddict(annotation):
        return isinstance(value, Mapping)
    return isinstance(value, annotation)


def misfits(value: object, annotation: object) -> Iterator[tuple[Path, object, object]]:
    """Yield each innermost value that does not fit, where it stands, and what it should fit."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from misfits(value, args[0])
        return
    if (
        isinstance(value, Blueprint)
        and search_spaces.is_space(value)
        and (written := search_spaces.categories(value))
    ):
        below, categories = written
        for index, category in enumerate(categories):
            if not fits(category, annotation):
                for path, innermost, expected in misfits(category, annotation):
                    yield (*below, index, *path), innermost, expected
        return
    if origin in _UNIONS and not isinstance(value, Grid):
        inner = [arg for arg in args if any(path for path, _, _ in misfits(value, arg))]
        if len(inner) == 1:
            yield from misfits(value, inner[0])
        else:
            yield (), value, annotation
        return
    pairs: list[tuple[Key, object, object]] = []
    if isinstance(value, Grid):
        pairs = [(i, element, annotation) for i, element in enumerate(value.elements)]
    elif isinstance(value, Mapping) and origin in _MAPPINGS and len(args) == 2:
        pairs = [(key, child, args[1]) for key, child in value.items()]
    elif isinstance(value, list | tuple) and origin in _SEQUENCES and args:
        fixed = origin is tuple and args[-1] is not Ellipsis
        kinds = args if fixed else (args[0],) * len(value)
        if len(kinds) == len(value):
            pairs = [(i, element, kinds[i]) for i, element in enumerate(value)]
    wrong = [(key, child, kind) for key, child, kind in pairs if not fits(child, kind)]
    for key, child, kind in wrong:
        for path, innermost, expected in misfits(child, kind):
            yield (key, *path), innermost, expected
    if not wrong:
        yield (), value, annotation


def wrong_keys(value: object, annotation: object) -> list[Key]:
    """Return the keys of a mapping that do not fit, where that is all that is wrong with it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(value, Mapping) or origin not in _MAPPINGS or len(args) != 2:
        return []
    return [key for key in value if not fits(key, args[0])]


def name_of(annotation: object) -> str:
    """Write an annotation for people: ``int or None``, ``list of str``."""
    if annotation in (None, type(None)):
        return "null"
    if annotation in (Any, object):
        return "anything"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return name_of(args[0])
    if origin in _UNIONS:
        return " or ".join(name_of(arg) for arg in args)
    if origin is typing.Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin in _MAPPINGS and len(args) == 2:
        return f"mapping of {name_of(args[0])} to {name_of(args[1])}"
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"list of {len(args)}: {', '.join(map(name_of, args))}"
    if origin in _SEQUENCES and args:
        inside = name_of(args[0])
        return f"list of ({inside})" if " or " in inside else f"list of {inside}"
    if inspect.isclass(annotation) and origin is None:  # in 3.10 an alias counts as a class
        names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
        module = annotation.__module__.partition(".")[0]
        name = names.get(annotation.__name__, annotation.__name__)
        return (
            name
            if module in ("builtins", "flambe", "__main__")
            else f"{module}.{annotation.__name__}"
        )
    return str(annotation).replace("typing.", "")


def kind_of(value: object) -> str:
    """Write what a value is, for people."""
    if isinstance(value, Blueprint):
        return f"!{value.tag}"
    if value is None:
        return "null"
    if isinstance(value, Grid | Sample):
        return "an option with such a value"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
