"""``yaml.load`` and ``yaml.dump``: blueprints from YAML, and YAML from blueprints and objects."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Mapping
from pathlib import Path as FilePath
from typing import IO, Any

from flambe.compile import registry, signatures, writer
from flambe.compile.build import Builder, Origin
from flambe.compile.checks.calls import check
from flambe.compile.component import Component
from flambe.compile.reader.composing import decoded
from flambe.compile.reader.document import read_file, read_text
from flambe.compile.reader.source import Document
from flambe.compile.registered import MappedRegistrable, Registered, Registrable
from flambe.compile.schema import Schema
from flambe.compile.values import ClusterResource, Grid, Link, Sample, links, replace, walk
from flambe.compile.variables import EnvValue, resolved
from flambe.errors import StateError


def load(source: str | FilePath | IO[str] | IO[bytes]) -> Any:
    """Read a blueprint; nothing is constructed.

    Parameters
    ----------
    source
        A path, an open file, or the text itself if it has more than one line or starts with ``!``.

    Returns
    -------
    Schema
        Call it to construct the object. A class that reads its own YAML (:class:`Registrable`,
        :class:`MappedRegistrable`) is loaded at once, and is returned itself; plain YAML is
        returned as lists, mappings and scalars.

    Raises
    ------
    ConfigError
        With every mistake in it.
    """
    document = read(source)
    check(document, alone=True)
    document.raise_problems()
    root = document.root
    if isinstance(root, Schema):
        target = root.resolve()
        if inspect.isclass(target) and issubclass(target, Registrable):
            return root()
    return root


def read(source: str | FilePath | IO[str] | IO[bytes]) -> Document:
    """Read a document, its mistakes noted in it; see :func:`load`."""
    if isinstance(source, FilePath):
        return read_file(source)
    if isinstance(source, str):
        is_text = "\n" in source or source.lstrip().startswith("!")
        return read_text(source) if is_text else read_file(source)
    data = source.read()
    name = str(getattr(source, "name", "<stream>"))
    return read_text(decoded(data, name) if isinstance(data, bytes) else data, name)


def dump(value: object, stream: IO[str] | None = None, *, resolve: bool = False) -> str:
    """Write a blueprint, or an object that was built from one or in Python, as YAML.

    Links and options are written as they were read. What is read back is equal.

    Parameters
    ----------
    value
        A :class:`Schema`, a component or another registered object, or plain data of those.
    stream
        Where to write to.
    resolve
        Whether values are written instead of the environment variables that they come from;
        secrets never are.

    Returns
    -------
    str
        The text.

    Raises
    ------
    StateError
        If something in it has no YAML form; the argument is named.
    """
    plain = _plain(value)
    text = _text(resolved(plain) if resolve else plain)
    if stream is not None:
        stream.write(text)
    return text


def dump_line(value: object) -> str:
    """Write a value on one line, as :func:`dump` does: ``!torch.Adam {lr: 0.1}``."""
    return writer.line(_plain(value))


# -- configuration files of saved components ----------------------------------------------------


def dump_standalone(component: object, stream: IO[str]) -> None:
    """Write all that it takes to build a component again, what it links to included."""
    origin: Origin | None = vars(component).get("_flambe_origin")
    if origin is None:
        stream.write(_text(resolved(_plain(component))))
        return
    names = _closure(origin)
    if not names:
        stream.write(_text(resolved(origin.schema)))
        return
    target = Link(str(origin.path[0]), origin.path[1:])
    described = {"names": {n: origin.names[n] for n in names}, "object": target}
    stream.write(_text(resolved(described)))


def load_standalone(path: str, extensions: Collection[str] = (), *, trust: bool = False) -> Any:
    """Build what :func:`dump_standalone` wrote: Components, and nothing else that is named there.

    Parameters
    ----------
    path
        The file.
    extensions
        The extensions that it may reach, besides those that this process declared.
    trust
        Whether it may reach all that it names.

    Raises
    ------
    ConfigError
        If it names what it may not reach, or what is not a Component.
    """
    declared = None if trust else {*registry.extensions().declared, *extensions}
    document = read_file(path, declared=declared)
    _check_built(document)
    document.raise_problems()
    registry.extensions().origins.update(document.extensions)
    root = document.root
    if isinstance(root, Schema):
        return root()
    if isinstance(root, Mapping) and isinstance(root.get("object"), Link):
        names = root.get("names")
        return Builder(names if isinstance(names, Mapping) else {}).follow(root["object"])
    raise StateError(f"{path} does not say how to build a component on its own")


def _check_built(document: Document) -> None:
    """Note what a saved component may not be made of: other than Components and what they take."""
    reached = set(document.extensions) - document.undeclared
    for path, value in walk(document.root):
        if not isinstance(value, Schema) or not value.target:
            continue
        target = value.resolve()
        cls = getattr(target, "__self__", target)
        value_class = inspect.isclass(cls) and issubclass(cls, Component | Registrable)
        package = str(getattr(cls, "__module__", "")).partition(".")[0]
        if not value_class and package not in {"torch", *reached}:
            document.problem(f"!{value.tag} is not a Component", path, "only those are loaded")


def _closure(origin: Origin) -> list[str]:
    """Return the names that a component's blueprint reaches through links, in their order."""
    if not any(True for _ in links(origin.schema)):
        return []
    if not origin.names:
        raise StateError(f"!{origin.schema.tag} links to what is outside of it")
    reached: set[str] = set()
    todo = [str(origin.path[0])]
    while todo:
        name = todo.pop()
        if name not in reached and name in origin.names:
            reached.add(name)
            todo += [link.root for _, link in links(origin.names[name])]
    return [name for name in origin.names if name in reached]


# -- to YAML ------------------------------------------------------------------------------------


def _plain(value: object, where: str = "") -> object:
    """Return the value with objects replaced by their blueprints."""
    if value is None or type(value) in _SCALARS or isinstance(value, Link | Sample | EnvValue):
        return value
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _plain(getattr(value, "item")(), where)  # noqa: B009 (an array of no dimension)
    if isinstance(value, ClusterResource):
        return value
    if isinstance(value, Schema | Grid):
        inside = f"{where}!{value.tag}" if isinstance(value, Schema) else where
        plain = replace(value, lambda key, child: _plain(child, f"{inside}[{key}]"))
        return _named(plain, inside) if isinstance(plain, Schema) else plain
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(child, f"{where}[{key}]") for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child, f"{where}[{index}]") for index, child in enumerate(value)]
    if isinstance(value, Registered):
        return _blueprint(value, where)
    if isinstance(value, FilePath):
        return str(value)
    raise StateError(
        f"cannot write {where or 'it'} as YAML: a {type(value).__module__}.{type(value).__name__} "
        "has no tag\n  make it a Component, or build it from a Schema"
    )


_SCALARS = (bool, int, float, str)


def _key(key: object, where: str) -> object:
    if type(key) in _SCALARS:
        return key
    raise StateError(
        f"cannot write {where or 'it'} as YAML: one of its keys is a {type(key).__name__}"
    )


def _named(schema: Schema, where: str) -> Schema:
    """Return the schema with all values under keywords, if it has both: YAML has no mixture."""
    if not schema.args or not schema.kwargs:
        return schema
    signature = signatures.signature(schema.resolve())
    parameters = list(signature.parameters.values()) if signature else []
    kinds = [p.kind for p in parameters[: len(schema.args)]]
    if len(kinds) < len(schema.args) or set(kinds) != {inspect.Parameter.POSITIONAL_OR_KEYWORD}:
        raise StateError(
            f"cannot write {where} as YAML: it has both positional values and keywords"
        )
    named = {p.name: arg for p, arg in zip(parameters, schema.args, strict=False)}
    return dataclasses.replace(schema, args=[], kwargs={**named, **schema.kwargs})


def _blueprint(obj: Registered, where: str) -> Schema:
    origin: Origin | None = vars(obj).get("_flambe_origin")
    if origin is not None:
        # Its keywords may have been given objects since.
        plain = _plain(origin.schema, where)
        assert isinstance(plain, Schema)
        return plain
    schema = Schema.of(type(obj))
    where = f"{where}!{schema.tag}"
    if isinstance(obj, Registrable) and not isinstance(obj, MappedRegistrable):
        schema.content = _plain(obj.to_yaml(), where)
        if isinstance(schema.content, Schema | Link | Grid | Sample | ClusterResource):
            raise StateError(f"cannot write {where} as YAML: its to_yaml() returns a tagged value")
        return schema
    arguments = obj.to_yaml() if isinstance(obj, MappedRegistrable) else _arguments(obj)
    signature = signatures.signature(type(obj))
    kinds = {n: p.kind for n, p in signature.parameters.items()} if signature else {}
    for name, value in arguments.items():
        if kinds.get(name) is inspect.Parameter.VAR_POSITIONAL:
            schema.args += [_plain(item, f"{where} {name}") for item in value]
        elif kinds.get(name) is inspect.Parameter.VAR_KEYWORD:
            schema.kwargs |= {k: _plain(v, f"{where} {k}") for k, v in value.items()}
        else:
            schema.kwargs[name] = _plain(value, f"{where} {name}")
    return _positional(schema, signature, where)


def _positional(schema: Schema, signature: inspect.Signature | None, where: str) -> Schema:
    """Return the schema without keywords, if what comes in ``*args`` stands behind them."""
    if not schema.args or not schema.kwargs or signature is None:
        return schema
    before = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            break
        before.append(parameter.name)
    if list(schema.kwargs) != before:
        raise StateError(
            f"cannot write {where} as YAML: it has both positional values and keywords"
        )
    return dataclasses.replace(schema, args=[*schema.kwargs.values(), *schema.args], kwargs={})


def _arguments(obj: Registered) -> Mapping[str, Any]:
    """Return what an object was made with."""
    kept: Mapping[str, Any] | None = vars(obj).get("_flambe_arguments")
    if kept is not None:
        return kept
    # A dataclass is given its constructor after it was registered.
    cls: object = type(obj)
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return {field.name: getattr(obj, field.name) for field in fields if field.init}


def _text(value: object) -> str:
    # The module of a class counts too: its tag may be its name alone.
    used = {
        name
        for _, child in walk(value)
        if isinstance(child, Schema)
        for name in (child.tag.partition(".")[0], re.split("[.:]", child.target)[0])
    }
    header = {
        name: origin for name, origin in registry.extensions().origins.items() if name in used
    }
    return (f"{writer.document(header)}---\n" if header else "") + writer.document(value)
