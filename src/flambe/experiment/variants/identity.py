"""A configuration as plain JSON, and its hash: the same for the same meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from flambe.compile.schema import Schema
from flambe.compile.values import ClusterResource, Grid, Link, Sample, shared

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


def canonical_text(value: object) -> str:
    """Return :func:`canonical` as text: equal for the same meaning, whatever the order of keys."""
    parts = [canonical(value), *_shared(value)]
    return json.dumps(parts if len(parts) > 1 else parts[0], sort_keys=True, separators=(",", ":"))


def _shared(config: object) -> list[object]:
    """Return the paths of each object that is shared: one object differs from equal ones."""
    groups = [["".join(f"[{key!r}]" for key in path) for path in group] for group in shared(config)]
    return [["!&", *groups]] if groups else []


def identity(
    stage: str, config: object, parents: Mapping[str, str], context: str, *more: object
) -> str:
    """Return the id of a variant: 48 bits in hexadecimal.

    Parameters
    ----------
    stage, config, parents
        See :class:`Variant`.
    context
        What all variants of a run depend on: the seed.
    more
        What else this variant depends on, as plain JSON.
    """
    value = [stage, canonical(config), sorted(parents.items()), context, *_shared(config), *more]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
