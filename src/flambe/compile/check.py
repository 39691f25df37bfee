"""What can be known of a configuration without building it.

Every mistake is noted in the document: keywords, types, links, options out of place.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from flambe.compile import tags, types
from flambe.compile.document import Document
from flambe.compile.values import (
    ClusterResource,
    Grid,
    Key,
    Link,
    Path,
    Sample,
    Schema,
    children,
    path_text,
    walk,
)
from flambe.errors import did_you_mean, listed


def check(document: Document, *, alone: bool = False) -> None:
    """Note every mistake in a document.

    Parameters
    ----------
    document
        As read.
    alone
        The document is a fragment: its links and options may belong to an experiment around it.
    """
    root = document.root
    for path, value in walk(root):
        if isinstance(value, Schema) and value.target:
            _check_call(document, path, value)
    scope = _scope(root)
    if scope or not alone:
        _check_links(document, scope)
        _check_places(document, scope)
    own = getattr(_resolved(root), "check_schema", None)
    if own is not None:
        for path, message, hint in own(root):
            document.problem(message, path, hint)


def _resolved(value: Any) -> Any:
    return value.resolve() if isinstance(value, Schema) and value.target else None


# -- keywords and types -------------------------------------------------------------------------


def _check_call(document: Document, path: Path, schema: Schema) -> None:
    target: Any = schema.resolve()
    if getattr(target, "_flambe_reads_yaml", False):
        return
    if inspect.isclass(target) and inspect.isabstract(target):
        missing = listed(sorted(getattr(target, "__abstractmethods__", ())))
        document.problem(
            f"!{schema.tag} is abstract: {missing} not implemented", path, "use a class built on it"
        )
        return
    signature = tags.signature(target)
    if signature is None:
        return
    parameters = signature.parameters
    if len(parameters) == 2 and all(
        p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()
    ):
        return
    hints = types.hints(target)
    positional = [
        p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    given: dict[str, tuple[Key, Any]] = {
        p.name: (index, arg)
        for index, (p, arg) in enumerate(zip(positional, schema.args, strict=False))
    }
    if len(schema.args) > len(positional) and not _has(signature, "VAR_POSITIONAL"):
        document.problem(
            f"!{schema.tag} takes {len(positional)} values, not {len(schema.args)}",
            path,
            f"its keywords: {listed(list(parameters))}" if parameters else "it has no keywords",
        )
    named = [p.name for p in parameters.values() if p.kind not in _VARIADIC]
    for key, value in schema.kwargs.items():
        if key not in named:
            if not _has(signature, "VAR_KEYWORD"):
                document.problem(
                    f"unknown keyword {key!r} for !{schema.tag}",
                    (*path, key),
                    did_you_mean(key, named)
                    or (f"its keywords: {listed(named)}" if named else "it has no keywords"),
                    key=True,
                )
        elif key in given:
            document.problem(f"{key!r} is given twice", (*path, key), key=True)
        else:
            given[key] = (key, value)
    missing_names = [
        p.name
        for p in parameters.values()
        if p.kind not in _VARIADIC and p.default is p.empty and p.name not in given
    ]
    if missing_names:
        plural = "s" if len(missing_names) > 1 else ""
        document.problem(
            f"!{schema.tag} needs the keyword{plural} {listed([repr(n) for n in missing_names])}",
            path,
        )
    for name, (position, value) in given.items():
        annotation = hints.get(name, Any)
        default = parameters[name].default
        if not types.fits(value, annotation) and not (value is None and default is None):
            document.problem(
                f"{name!r} of !{schema.tag} cannot be {types.kind_of(value)}",
                (*path, position),
                f"expected {types.name_of(annotation)}",
            )


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _has(signature: inspect.Signature, kind: str) -> bool:
    return any(p.kind.name == kind for p in signature.parameters.values())


# -- links and options --------------------------------------------------------------------------

Scope = dict[str, tuple[Path, Any]]


def scope_names(target: Any) -> tuple[str, ...]:
    """Return the keywords of a class whose entries links may start from, in order."""
    return tuple(getattr(target, "_flambe_scopes", ()))


def _scope(root: Any) -> Scope:
    """Return what links may start from: name → (its path, its value), in order."""
    scope: Scope = {}
    if isinstance(root, Schema):
        for keyword in scope_names(_resolved(root)):
            entries = root.kwargs.get(keyword)
            if isinstance(entries, Mapping):
                for name, value in entries.items():
                    scope.setdefault(str(name), ((keyword, name), value))
    return scope


def _check_links(document: Document, scope: Scope) -> None:
    order = {path: index for index, (path, _) in enumerate(walk(document.root))}
    starts = [path for path, _ in scope.values()]
    for path, link in walk(document.root):
        if not isinstance(link, Link):
            continue
        own = next((start for start in starts if path[: len(start)] == start), None)
        if own is None:
            document.problem(f"!@ {link}: no link can stand here", path, "links stand in a stage")
        elif link.root not in scope:
            document.problem(
                f"!@ {link} leads to nothing: there is no stage or resource {link.root!r}",
                path,
                did_you_mean(link.root, scope) or f"there are: {listed(list(scope))}",
            )
        else:
            _check_target(document, path, link, scope, order)


def _check_target(
    document: Document, path: Path, link: Link, scope: Scope, order: dict[Path, int]
) -> None:
    start, value = scope[link.root]
    later = "links lead to what stands above them"
    if path[: len(start)] != start and order[start] > order[path]:
        document.problem(f"!@ {link} leads to something later", path, later)
        return
    alternatives: list[tuple[Path, Any]] = [(start, value)]
    walked: Path = (link.root,)
    for key in link.keys:
        below = [pair for option in alternatives for pair in _below(option, key, scope)]
        if not below:
            known = sorted({str(k) for o in alternatives for k in _keys(o, scope)})
            document.problem(
                f"!@ {link} leads to nothing: {path_text(walked)} has no keyword {key!r} here",
                path,
                did_you_mean(str(key), known)
                or (f"it has: {listed(known)}; " if known else "")
                + "a dot leads to an attribute of the built object",
            )
            return
        alternatives, walked = below, (*walked, key)
    found = [option_path for option_path, _ in alternatives]
    if all(path[: len(target)] == target for target in found):
        document.problem(
            f"!@ {link} leads to a parent of the link",
            path,
            "a link leads to something that is complete before it",
        )
    elif all(order[target] > order[path] for target in found if target in order):
        document.problem(f"!@ {link} leads to something later", path, later)


def _below(option: tuple[Path, Any], key: Key, scope: Scope) -> Iterator[tuple[Path, Any]]:
    """Yield what stands at a key below a value, on through options and links."""
    for path, value in _alternatives(option, scope, 0):
        if value is _ANYTHING:
            yield path, _ANYTHING
        for name, child in children(value):
            if name == key:
                yield (*path, name), child


def _keys(option: tuple[Path, Any], scope: Scope) -> Iterator[Key]:
    for _, value in _alternatives(option, scope, 0):
        if value is not _ANYTHING:
            yield from (key for key, _ in children(value))


_ANYTHING = object()


def _alternatives(option: tuple[Path, Any], scope: Scope, depth: int) -> Iterator[tuple[Path, Any]]:
    path, value = option
    if isinstance(value, Grid):
        for index, element in enumerate(value.elements):
            yield from _alternatives(((*path, index), element), scope, depth)
    elif isinstance(value, Link):
        # A link on the way goes on where it leads to; what has dots is known at run time.
        if value.attributes or value.root not in scope or depth > 20:
            yield path, _ANYTHING
            return
        reached = [scope[value.root]]
        for key in value.keys:
            reached = [pair for r in reached for pair in _below(r, key, scope)]
        for target in reached:
            yield from _alternatives(target, scope, depth + 1)
    else:
        yield path, value


def _check_places(document: Document, scope: Scope) -> None:
    stages = [path for path, _ in scope.values()]
    for path, value in walk(document.root):
        inside = any(path[: len(start)] == start for start in stages)
        if isinstance(value, Grid | Sample) and not (inside and path[0] == "pipeline"):
            document.problem("an option stands in a pipeline only", path)
        if isinstance(value, ClusterResource) and not (len(path) == 2 and path[0] == "resources"):
            document.problem("!cluster stands under resources only", path)
