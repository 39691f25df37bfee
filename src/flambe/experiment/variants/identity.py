"""A configuration as plain JSON, and its hash: the same for the same meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from flambe.compile.schema import Schema
from flambe.compile.values import (
    Blueprint,
    ClusterResource,
    Grid,
    Link,
    Sample,
    shared,
    walk,
)

_MAPPING, _LIST = "!map", "!list"
_MARKS = ("!", "!@", "!cluster", "!g", "!s", _MAPPING, _LIST)


def canonical(value: object) -> object:
    """Return a configuration as plain JSON, the same for the same meaning."""
    if isinstance(value, Schema):
        content = canonical(value.content) if value.content is not None else None
        kwargs = {key: canonical(child) for key, child in sorted(value.kwargs.items())}
        return ["!", value.target, [canonical(arg) for arg in value.args], kwargs, content]
    if isinstance(value, Link):
        return ["!@", str(value)]
    if isinstance(value, ClusterResource):
        return ["!cluster", value.location]
    if isinstance(value, Grid):  # inside the element of another one
        return ["!g", [canonical(element) for element in value.elements]]
    if isinstance(value, Sample):
        return ["!s", value.low, value.high, value.n, value.decimals]
    if isinstance(value, Mapping):
        pairs = [(key, canonical(child)) for key, child in value.items()]
        if all(isinstance(key, str) for key, _ in pairs):
            return dict(pairs)
        # A key of JSON is text: {1: x} is not {"1": x}.
        return [_MAPPING, sorted(([key, child] for key, child in pairs), key=_sort_key)]
    if isinstance(value, list | tuple):
        parts = [canonical(child) for child in value]
        # A list of the user's may start like one of the above.
        return [_LIST, parts] if parts and parts[0] in _MARKS else parts
    return value


def _sort_key(pair: list[object]) -> str:
    return json.dumps(pair[0])


def dump(value: object) -> str:
    """Return plain JSON as text: equal for the same meaning, whatever the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def canonical_text(value: object) -> str:
    """Return :func:`canonical` as text: equal for the same meaning, whatever the order of keys."""
    parts = [canonical(value), *_shared(value)]
    return dump(parts if len(parts) > 1 else parts[0])


def _shared(config: object) -> list[object]:
    """Return the paths of each object that is shared: one object differs from equal ones."""
    groups = [["".join(f"[{key!r}]" for key in path) for path in group] for group in shared(config)]
    return [["!&", *groups]] if groups else []


class ConfigTexts:
    """Writes the configurations of one stage as canonical JSON.

    Variants share what has no options, as one object: its text is written once. So a variant costs
    what differs in it, and not its whole configuration.

    Parameters
    ----------
    blueprint
        The stage as it is written, with its options.
    names
        Root of a link → the name that stands for it, where that is another one.
    """

    def __init__(self, blueprint: object, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        #: Containers of the blueprint, which stay alive with it: others may share their ``id()``.
        self._blueprint = blueprint
        self._kept = {id(child) for _, child in walk(blueprint) if _is_container(child)}
        self._texts: dict[int, str] = {}
        self._anchored = any(
            isinstance(child, Blueprint) and child.anchor is not None
            for _, child in walk(blueprint)
        )

    def text(self, config: object) -> str:
        """Return a configuration as :func:`canonical` has it, as text."""
        if not _is_container(config):
            return self._leaf(config)
        key = id(config)
        if key not in self._kept:
            return self._container(config)
        if key not in self._texts:
            self._texts[key] = self._container(config)
        return self._texts[key]

    def shared(self, config: object) -> list[str]:
        """Return which of its objects a configuration shares, as text: nothing, or one part."""
        return [dump(part) for part in _shared(config)] if self._anchored else []

    def _container(self, value: object) -> str:
        if isinstance(value, Schema):
            args = ",".join(map(self.text, value.args))
            content = self.text(value.content) if value.content is not None else "null"
            pairs = self._pairs(value.kwargs)
            return f'["!",{json.dumps(value.target)},[{args}],{{{pairs}}},{content}]'
        if isinstance(value, Grid):
            return f'["!g",[{",".join(map(self.text, value.elements))}]]'
        if isinstance(value, Mapping):
            if all(isinstance(key, str) for key in value):
                return f"{{{self._pairs(value)}}}"
            keys = sorted(value, key=json.dumps)
            pairs = ",".join(f"[{dump(key)},{self.text(value[key])}]" for key in keys)
            return f'["{_MAPPING}",[{pairs}]]'
        assert isinstance(value, list | tuple)
        parts = f"[{','.join(map(self.text, value))}]"
        return f'["{_LIST}",{parts}]' if value and value[0] in _MARKS else parts

    def _pairs(self, pairs: Mapping[str, object]) -> str:
        return ",".join(f"{json.dumps(key)}:{self.text(pairs[key])}" for key in sorted(pairs))

    def _leaf(self, value: object) -> str:
        if isinstance(value, Link) and value.root in self._names:
            return dump(["!@", self._names[value.root] + str(value)[len(value.root) :]])
        return dump(canonical(value))


def _is_container(value: object) -> bool:
    return isinstance(value, Schema | Grid | Mapping | list | tuple)


def hash_parts(parts: list[str]) -> str:
    """Return the id that a list of JSON has: 48 bits in hexadecimal."""
    return hashlib.sha256(f"[{','.join(parts)}]".encode()).hexdigest()[:12]


def identity(
    stage: str,
    config: str,
    parents: Mapping[str, str],
    context: str,
    shared_objects: list[str],
    *more: object,
) -> str:
    """Return the id of a variant: 48 bits in hexadecimal.

    Parameters
    ----------
    stage, parents
        See :class:`Variant`; stages by their original names.
    config, shared_objects
        As :class:`ConfigTexts` returns them.
    context
        What all variants of a run depend on: the seed.
    more
        What else this variant depends on, as plain JSON.
    """
    ancestors = dump(sorted(parents.items()))
    head = [json.dumps(stage), config, ancestors, json.dumps(context)]
    return hash_parts([*head, *shared_objects, *map(dump, more)])


def input_parts(
    code: Mapping[str, str], data: Mapping[str, str], packages: Mapping[str, str]
) -> list[object]:
    """Return what an identity holds besides the configuration: nothing, or one part or two."""
    parts: list[object] = []
    if code or data:
        parts += [sorted(set(code.values())), sorted(data.items())]
    if packages:
        parts.append(["packages", *sorted(packages.items())])
    return parts


def context_of(seed: int, resources: Mapping[str, object]) -> str:
    """Return what all variants of a run under one seed depend on."""
    return f"{seed}:{canonical(resources)}"
