"""Building objects from blueprints, with links resolved.

One small memoised walk: each path of the configuration is built once, so that a link gives the very
object that was built there.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from flambe.compile import annotation_checks as types
from flambe.compile import component_errors, signatures, variables, workspace
from flambe.compile.registered import Registered, reads_yaml
from flambe.compile.values import (
    Anchor,
    Blueprint,
    ClusterResource,
    Grid,
    Key,
    Link,
    Path,
    Sample,
    path_text,
    walk,
)
from flambe.errors import ComponentError, ConfigError, FlambeError, Problem, did_you_mean

_NOTHING = object()


class Builder:
    """Builds what stands at the names that links start from.

    Parameters
    ----------
    names
        What links start from: stages and resources, in order.
    elsewhere
        Given a name, the builder that builds it; by default this one does.
    outline
        Whether only the root is constructed: the tags below it stay blueprints.
    """

    def __init__(
        self,
        names: Mapping[str, object],
        elsewhere: Callable[[str], Builder | None] = lambda name: None,
        *,
        outline: bool = False,
    ) -> None:
        self.names = names
        self.elsewhere = elsewhere
        self.outline = outline
        self.built: dict[Path, object] = {}
        self.open: list[Path] = []
        # What stands in several places: its blueprint, where it was built first, and the object.
        self._shared: dict[tuple[Path, Anchor], list[tuple[Blueprint, Path, object]]] = {}
        # Each other place of it → the first.
        self._first: dict[Path, Path] = {}

    def stage(self, name: str) -> Any:
        """Return the object at a name, built at first use."""
        other = self.elsewhere(name)
        if other is not None:
            return other.stage(name)
        if (name,) in self.built:
            return self.built[(name,)]
        return self.build(self.names[name], (name,))

    def build(self, value: object, path: Path) -> Any:
        """Build a value that stands at a path.

        Raises
        ------
        ComponentError
            If a component raises while it is built.
        ConfigError
            If a link leads nowhere, or an option was not expanded.
        """
        self.open.append(path)
        try:
            result = self._build(value, path)
        finally:
            self.open.pop()
        self.built[path] = result
        return result

    def _build(self, value: object, path: Path) -> object:
        if isinstance(value, Blueprint):
            return self._call(value, path) if value.anchor is None else self._once(value, path)
        if isinstance(value, Link):
            return self.follow(value)
        if isinstance(value, Grid | Sample):
            raise ConfigError(
                Problem(
                    f"an option at {path_text(path) or 'the root'} has no single value",
                    hint="options are expanded by an Experiment; give a value to build it alone",
                )
            )
        if isinstance(value, ClusterResource):
            return value
        if isinstance(value, Mapping):
            return {key: self.build(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [self.build(child, (*path, index)) for index, child in enumerate(value)]
        return variables.plain(value)

    def _once(self, schema: Blueprint, path: Path) -> object:
        """Build what stands in several places of a stage, or of a blueprint that is built alone."""
        assert schema.anchor is not None
        stage = path[:1] if self.names else ()
        objects = self._shared.setdefault((stage, schema.anchor), [])
        for blueprint, first, shared in objects:
            if blueprint == schema:
                self._first[path] = first
                return shared
        component = self._call(schema, path)
        objects.append((schema, path, component))
        return component

    def _call(self, schema: Blueprint, path: Path) -> object:
        try:
            target = schema.resolve()
        except (Exception, SystemExit) as error:
            raise _component_error(error, schema, "importing") from error
        if reads_yaml(target):
            content = self.build(schema.content, path)
            from_yaml = target.from_yaml
            return self._guarded(schema, lambda: from_yaml(content))
        hints = types.hints(target)
        signature = signatures.signature(target)
        names: list[Key] = list(signature.parameters) if signature else []

        def argument(key: Key, name: Key, child: object) -> object:
            if self.outline or types.wants_schema(hints.get(str(name))):
                return variables.plain(child)
            return self.build(child, (*path, key))

        named = itertools.zip_longest(names[: len(schema.args)], schema.args)
        args = [argument(index, name, arg) for index, (name, arg) in enumerate(named)]
        kwargs = {key: argument(key, key, child) for key, child in schema.kwargs.items()}
        component = self._guarded(schema, lambda: target(*args, **kwargs))
        if isinstance(component, Registered):
            workspace.give(component)
            vars(component)["_flambe_origin"] = Origin(schema, path, dict(self.names))
        return component

    def _guarded(self, schema: Blueprint, call: Callable[[], object]) -> object:
        try:
            return call()
        except FlambeError:
            raise
        except (Exception, SystemExit) as error:
            raise _component_error(error, schema, "building") from error

    # -- links --------------------------------------------------------------------------------

    def follow(self, link: Link) -> object:
        """Return what a link leads to."""
        if link.reserved:
            raise ConfigError(Problem(f"!@ {link}: no link leads to {link.reserved}", link.place))
        target = self.at(link.path)
        walked = path_text(link.path)
        for position, name in enumerate(link.attributes):
            try:
                target = getattr(target, name)
            except AttributeError:
                raise ConfigError(
                    Problem(
                        f"!@ {link}: {walked} is a {type(target).__name__} without {name!r}",
                        link.place,
                        (self._written(link) if not position else "")
                        or did_you_mean(name, [n for n in dir(target) if not n.startswith("_")])
                        or "dots walk the attributes of the built object",
                    )
                ) from None
            walked += f".{name}"
        return target

    def _written(self, link: Link) -> str:
        """Return how a link leads to a keyword, or what is below one, that it named by a dot."""
        value = self.names.get(link.root)
        for key in link.keys:
            value = child_at(value, key)
        name, *rest = link.attributes
        below = [path for path, _ in walk(value) if path and path[-1] == name]
        if not below:
            return ""
        corrected = Link(link.root, (*link.keys, *min(below, key=len)), tuple(rest))
        return f"{name!r} is in the configuration; brackets walk there:   !@ {corrected}"

    def at(self, path: Path) -> object:
        """Return the built object at a path."""
        name = str(path[0])
        if name not in self.names:
            raise ConfigError(
                Problem(
                    f"!@ {path_text(path)} leads to nothing: there is no {name!r}",
                    hint="links start at a stage or resource above them",
                )
            )
        other = self.elsewhere(name)
        if other is not None:
            other.stage(name)
            return other.at(path)
        if path not in self.built and (name,) not in self.open:
            self.stage(name)
        if path in self.built:
            return self.built[path]
        for length in range(len(path) - 1, 0, -1):
            if path[:length] in self._first:
                return self.at((*self._first[path[:length]], *path[length:]))
        return self._through(path)

    def _through(self, path: Path) -> object:
        """Walk the configuration to a path, following the links along it."""
        value = self.names[str(path[0])]
        for position, key in enumerate(path[1:], start=1):
            value = child_at(value, key)
            if isinstance(value, Link):
                rest = path[position + 1 :]
                if not value.attributes:
                    return self.at((*value.path, *rest))
                target: object = self.follow(value)
                for step in rest:
                    target = getattr(target, str(step), _NOTHING)
                if target is not _NOTHING:
                    return target
        raise ConfigError(
            Problem(
                f"!@ {path_text(path)} leads to nothing that is built before it",
                hint="link to what is above; use a dot for an attribute of the object",
            )
        )


def outlined(schema: Blueprint) -> Any:
    """Construct only the root of a blueprint, to inspect it; its keywords stay blueprints."""
    return Builder({}, outline=True).build(schema, ())


class Origin:
    """Where a built object came from: kept with it, so that it is written as it was read.

    Attributes
    ----------
    schema
        Its blueprint, with the links as written.
    path
        Its place below the names.
    names
        What its links start from.
    """

    def __init__(self, schema: Blueprint, path: Path, names: dict[str, object]) -> None:
        self.schema = schema
        self.path = path
        self.names = names


def folder_of(component: object) -> FilePath:
    """Return the folder of the file that an object was read from, which its paths start from.

    For an object that was made in Python it is the current folder.
    """
    origin: Origin | None = vars(component).get("_flambe_origin")
    position = origin.schema.place if origin is not None else None
    return FilePath(position.folder) if position and position.folder else FilePath.cwd()


def child_at(value: object, key: Key) -> object:
    """Return the direct child at a key, or a marker that equals nothing."""
    if isinstance(value, Blueprint):
        if isinstance(key, int):
            return value.args[key] if key < len(value.args) else _NOTHING
        return value.kwargs.get(key, _NOTHING)
    if isinstance(value, Mapping):
        return value.get(key, _NOTHING)
    if isinstance(value, list | tuple) and isinstance(key, int) and key < len(value):
        return value[key]
    return _NOTHING


def _component_error(error: BaseException, schema: Blueprint, doing: str) -> ComponentError:
    return ComponentError(
        component_errors.message(error),
        schema.place,
        f"{doing} !{schema.tag}",
        component_errors.traceback_text(error),
        _own_frame(error, schema.target.partition(".")[0].partition(":")[0]),
    )


def run_error(component: object, error: BaseException, doing: str = "running") -> ComponentError:
    """Return the error to raise for one that came out of a method of a component."""
    origin: Origin | None = None
    with contextlib.suppress(TypeError):
        origin = vars(component).get("_flambe_origin")
    tag = origin.schema.tag if origin else type(component).__name__
    return ComponentError(
        component_errors.message(error),
        origin.schema.place if origin else None,
        f"{doing} !{tag}",
        component_errors.traceback_text(error),
        _own_frame(error, type(component).__module__.partition(".")[0]),
    )


def _own_frame(error: BaseException, package: str) -> str:
    """Return the last place in the code of a package where an error came by; not in flambe's."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if package == "flambe" or file is None:
        return ""
    whole = FilePath(file)
    inside = whole.parent if whole.name == "__init__.py" else whole
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if FilePath(frame.filename).is_relative_to(inside)
    ]
    if not own:
        return ""
    last = own[-1]
    file = last.filename.rpartition("/site-packages/")[2]
    return component_errors.clean(f"{file}:{last.lineno}, in {last.name}:   {last.line}")
