"""Do links lead to what a keyword takes? Asked where the types of both are known."""

from __future__ import annotations

from collections.abc import Iterator

from flambe.compile import annotation_checks as types
from flambe.compile import signatures
from flambe.compile.checks.link_targets import Reach, is_known
from flambe.compile.reader.source import Document
from flambe.compile.registered import reads_yaml
from flambe.compile.schema import Schema
from flambe.compile.values import (
    BROKEN,
    ClusterResource,
    Grid,
    Key,
    Link,
    Path,
    children,
    path_text,
    replace,
    walk,
)


def check(document: Document, reach: Reach) -> None:
    """Note links to objects of a wrong type, in a document without other mistakes."""
    for path, schema in walk(document.root):
        if not isinstance(schema, Schema) or not schema.target:
            continue
        for name, position, annotation in _annotated(schema):
            below = (*path, position)
            value = schema.args[position] if isinstance(position, int) else schema.kwargs[name]
            links = dict(_links_in(value, below))
            if links:
                _check_value(document, (schema.tag, name), links, below, value, annotation, reach)


def _check_value(
    document: Document,
    keyword: tuple[str, str],
    links: dict[Path, Link],
    path: Path,
    value: object,
    annotation: object,
    reach: Reach,
) -> None:
    tag, name = keyword
    linked = _followed(value, path, reach)
    if types.fits(linked, annotation):
        return
    reported: set[Path] = set()
    for inside, wrong, expected in types.misfits(linked, annotation):
        position = next((at for at in links if (*path, *inside)[: len(at)] == at), path)
        if position not in reported:  # once, for a link that leads to several
            reported.add(position)
            link = f" (!@ {links[position]})" if position in links else ""
            below = path_text((name, *position[len(path) :]))
            document.problem(
                f"{below!r} of !{tag} cannot be {types.kind_of(wrong)}{link}",
                position,
                f"expected {types.name_of(expected)}",
            )


def _annotated(schema: Schema) -> Iterator[tuple[str, Key, object]]:
    """Yield the name, the position and the type of each argument whose type is known."""
    target = schema.resolve()
    signature = signatures.signature(target)
    if signature is None or reads_yaml(target):
        return
    hints = types.hints(target)
    parameters = [p for p in signature.parameters.values() if p.name in hints]
    for parameter in parameters:
        annotation = hints[parameter.name]
        if parameter.default is None:
            annotation = annotation | None if isinstance(annotation, type) else annotation
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        index = list(signature.parameters).index(parameter.name)
        if parameter.name in schema.kwargs:
            yield parameter.name, parameter.name, annotation
        elif parameter.kind != parameter.KEYWORD_ONLY and index < len(schema.args):
            yield parameter.name, index, annotation


def _links_in(value: object, path: Path) -> Iterator[tuple[Path, Link]]:
    """Yield the links that are a value, or stand in its lists, mappings and options."""
    if isinstance(value, Link):
        yield path, value
    elif not isinstance(value, Schema):
        for key, child in children(value):
            yield from _links_in(child, (*path, key))


def _followed(value: object, path: Path, reach: Reach) -> object:
    """Return a value with what its links may lead to instead of them."""
    if isinstance(value, Link):
        values = [_built(v) for _, v in reach.alternatives(path, value) if is_known(v)]
        return Grid(tuple(values)) if values else BROKEN
    if isinstance(value, Schema):
        return value
    return replace(value, lambda key, child: _followed(child, (*path, key), reach))


def _built(value: object) -> object:
    # On a cluster a resource is a path, like any other.
    return value.location if isinstance(value, ClusterResource) else value
