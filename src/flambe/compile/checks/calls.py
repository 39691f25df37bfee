"""What can be checked in a configuration without building it.

Every mistake is noted in the document: keywords, types, links, options out of place.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence

from flambe.compile import annotation_checks as types
from flambe.compile import search_spaces, signatures
from flambe.compile.checks import links
from flambe.compile.checks.link_targets import Reach, Scope
from flambe.compile.reader.source import Document
from flambe.compile.registered import reads_yaml
from flambe.compile.schema import Schema
from flambe.compile.values import (
    Broken,
    ClusterResource,
    Grid,
    Key,
    Link,
    Path,
    Sample,
    children,
    path_text,
    replace,
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
            _check_plain(document, path, value)
            _check_itself(document, path, value, "check_schema")
    scope = _scope(root)
    if scope or not alone:
        _check_links(document, scope)
        _check_places(document, scope)
    if not document.problems:
        for path, value in walk(root):
            if isinstance(value, Schema) and value.target:
                _check_itself(document, path, value, "check_size")


def _check_plain(document: Document, path: Path, schema: Schema) -> None:
    """Check that tags are used only where a class takes them, if it says where.

    Commands that only inspect a file construct its root alone, from what is not a tag.
    """
    target = schema.resolve()
    tagged = getattr(target, "_flambe_tagged", None)
    if tagged is None:
        return
    hints = types.hints(target)
    for key, value in children(schema):
        annotation = hints.get(str(key))
        if key in tagged or types.is_schema(annotation):
            continue
        if types.wants_schema(annotation):  # as the values of a mapping
            tags, kind = [((*path, key), value)], "a mapping"
        else:
            tags, kind = list(walk(value, (*path, key))), "plain values"
        for below, child in tags:
            if isinstance(child, Schema):
                message = f"{key!r} of !{schema.tag} takes {kind}, not !{child.tag}"
                document.problem(message, below, "write the value itself")


def _check_itself(document: Document, path: Path, schema: Schema, method: str) -> None:
    """Let a class that has more to check than keywords and types do so.

    ``check_schema`` is always called; ``check_size``, which checks whether the blueprint describes
    more than is allowed, only if nothing else is wrong.
    """
    own = getattr(schema.resolve(), method, None)
    sound = _sound(schema) if own is not None else None
    if own is not None and sound is not None:
        for below, message, hint in own(sound):
            document.problem(message, (*path, *below), hint)


def _sound(root: Schema) -> Schema | None:
    """Return a blueprint with the keywords that are of their type; None if there are no stages.

    What is wrong has been reported, and a class that checks more need not expect it.
    """
    target = root.resolve()
    hints = types.hints(target)
    kwargs = {
        key: value
        for key, value in root.kwargs.items()
        if not isinstance(value, Broken) and types.fits(value, hints.get(key, object))
    }
    scopes = set(scope_names(target))
    if scopes & (set(root.kwargs) - set(kwargs)) or (scopes and not scopes & set(kwargs)):
        return None
    unknown = Schema("", "")
    for name in scopes & set(kwargs):
        kwargs[name] = replace(kwargs[name], lambda _, v: unknown if isinstance(v, Broken) else v)
    return Schema(root.target, root.tag, root.args, kwargs, root.place)


def _resolved(value: object) -> object:
    return value.resolve() if isinstance(value, Schema) and value.target else None


# -- keywords and types -------------------------------------------------------------------------


def _check_call(document: Document, path: Path, schema: Schema) -> None:
    target = schema.resolve()
    if reads_yaml(target):
        return
    if inspect.isclass(target) and inspect.isabstract(target):
        missing = listed(sorted(getattr(target, "__abstractmethods__", ())))
        document.problem(
            f"!{schema.tag} is abstract: {missing} not implemented", path, "use a class built on it"
        )
        return
    signature = signatures.signature(target)
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
    arguments: dict[str, tuple[Key, object]] = {
        p.name: (index, arg)
        for index, (p, arg) in enumerate(zip(positional, schema.args, strict=False))
    }
    if len(schema.args) > len(positional) and not signatures.has(signature, "VAR_POSITIONAL"):
        document.problem(
            f"!{schema.tag} takes {len(positional)} values, not {len(schema.args)}",
            path,
            f"its keywords: {listed(list(parameters))}" if parameters else "it has no keywords",
        )
    named = [p.name for p in parameters.values() if p.kind not in _VARIADIC]
    suggestions: set[str] = set()
    for key, value in schema.kwargs.items():
        if key not in named:
            if not signatures.has(signature, "VAR_KEYWORD"):
                close = did_you_mean(key, named)
                suggestions.add(close)
                document.problem(
                    f"unknown keyword {key!r} for !{schema.tag}",
                    (*path, key),
                    close or (f"its keywords: {listed(named)}" if named else "it has no keywords"),
                    key=True,
                )
        elif key in arguments:
            document.problem(f"{key!r} is given twice", (*path, key), key=True)
        else:
            arguments[key] = (key, value)
    missing_names = [
        p.name
        for p in parameters.values()
        if p.kind not in _VARIADIC
        and p.default is p.empty
        and p.name not in arguments
        and did_you_mean(p.name, [p.name]) not in suggestions
    ]
    if missing_names:
        plural = "s" if len(missing_names) > 1 else ""
        document.problem(
            f"!{schema.tag} needs the keyword{plural} {listed([repr(n) for n in missing_names])}",
            path,
        )
    for name, (position, value) in arguments.items():
        annotation = hints.get(name, object)
        default = parameters[name].default
        if not types.fits(value, annotation) and not (value is None and default is None):
            for below, wrong, expected in types.misfits(value, annotation):
                keyword = path_text((name, *below))
                if keys := types.wrong_keys(wrong, expected):
                    for wrong_key in keys:
                        message = (
                            f"{types.kind_of(wrong_key)} cannot be a key of {keyword!r} "
                            f"of !{schema.tag}"
                        )
                        hint = f"expected {types.name_of(typing.get_args(expected)[0])}: quote it"
                        document.problem(
                            message, (*path, position, *below, wrong_key), hint, key=True
                        )
                    continue
                document.problem(
                    f"{keyword!r} of !{schema.tag} cannot be {types.kind_of(wrong)}",
                    (*path, position, *below),
                    f"expected {types.name_of(expected)}{_whole_numbers(wrong, expected)}",
                )


def _whole_numbers(value: object, annotation: object) -> str:
    """Return which space draws whole numbers, where they are expected of another one."""
    if (
        isinstance(value, Schema)
        and search_spaces.is_space(value)
        and search_spaces.draws_real(value)
        and types.fits(1, annotation)
    ):
        return ", which   !tune.randint [low, high]   draws"
    return ""


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


# -- links and options --------------------------------------------------------------------------


def scope_names(target: object) -> tuple[str, ...]:
    """Return the keywords of a class whose entries links may start from, in order."""
    return tuple(getattr(target, "_flambe_scopes", ()))


def _scope(root: object) -> Scope:
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
    order = _order(document.root, [str(keyword) for (keyword, _), _ in scope.values()])
    starts = {path for path, _ in scope.values()}
    reach = Reach(scope, order)
    for path, link in walk(document.root):
        if not isinstance(link, Link):
            continue
        if path[:2] not in starts:  # a keyword, and a name in it
            document.problem(
                f"!@ {link}: links are not allowed here", path, "links belong in a stage"
            )
        elif link.root not in scope:
            document.problem(
                f"!@ {link} leads to nothing: there is no stage or resource {link.root!r}",
                path,
                did_you_mean(link.root, scope) or f"available: {listed(list(scope))}",
            )
        else:
            try:
                _check_target(document, path, link, reach)
                reach.alternatives(path, link)  # remembered: links below lead on from here
            except RecursionError:
                document.problem(f"!@ {link} leads through too many other links", path)
    if not document.problems:
        links.check(document, reach)


def _order(root: object, keywords: Sequence[str]) -> dict[Path, int]:
    """Return the position of each path, as if keywords that links start from came last, in order.

    The order of keywords in the file does not matter: resources exist before any stage.
    """
    ranks = {keyword: rank for rank, keyword in enumerate(dict.fromkeys(keywords), start=1)}
    paths = sorted(
        (path for path, _ in walk(root)), key=lambda path: ranks.get(str(path[0]), 0) if path else 0
    )
    return {path: index for index, path in enumerate(paths)}


def _check_target(document: Document, path: Path, link: Link, reach: Reach) -> None:
    if link.reserved:
        document.problem(f"!@ {link}: no link leads to {link.reserved}", path)
        return
    start, _ = reach.scope[link.root]
    position = reach.order[path]
    later = "links lead to what is above them"
    if path[: len(start)] != start and reach.order[start] > position:
        document.problem(f"!@ {link} leads to something later", path, later)
        return
    for length, key in enumerate(link.keys, start=1):
        if not reach.follow(link.path[: length + 1]):
            above = link.path[:length]
            keywords = sorted(str(k) for k in reach.below(above))
            document.problem(
                f"!@ {link} leads to nothing: {path_text(above)} has no keyword {key!r} here",
                path,
                did_you_mean(str(key), keywords)
                or (f"it has: {listed(keywords)}; " if keywords else "")
                + "a dot leads to an attribute of the built object",
            )
            return
    if link.attributes and reach.is_plain(link.path):
        document.problem(
            f"!@ {link}: {path_text(link.path)} is not a component, and has no attributes",
            path,
            "is its tag missing? A component is written   !Tag",
        )
        return
    earliest = reach.earliest(link.path)
    if all(path[: len(target)] == target for target, _ in reach.follow(link.path)):
        document.problem(
            f"!@ {link} leads to a parent of the link",
            path,
            "a link leads to something that is complete before it",
        )
    elif earliest is not None and earliest > position:
        document.problem(f"!@ {link} leads to something later", path, later)


def _check_places(document: Document, scope: Scope) -> None:
    starts = {path for path, _ in scope.values()}
    for path, value in walk(document.root):
        inside = path[:2] in starts
        if isinstance(value, Grid | Sample) and not (inside and path[0] == "pipeline"):
            document.problem("options are allowed in a pipeline only", path)
        if isinstance(value, ClusterResource) and not (len(path) == 2 and path[0] == "resources"):
            document.problem("!cluster is allowed under resources only", path)
