"""The dimensions of a search: the spaces of a configuration, those inside others included.

``!tune.choice`` may choose between components, links and lists, and these may have spaces of their
own: a value of such a space counts only where its option was chosen. All of them together are the
dimensions of the search; each has a key:

- ``train[lr]`` is the path of a space;
- ``train[optimizer]`` is that of a choice between components: its values are their labels;
- ``train[optimizer][lr]~torch.Adam`` is a space of one of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from flambe.compile import Schema, search_spaces
from flambe.compile.values import ClusterResource, Link, Path, children, path_text, replace, walk
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import is_domain, label

#: What a key has between the path of a space and the labels of the options that it is in.
SEPARATOR = "~"


def options_of(space: object) -> dict[str, object] | None:
    """Return the options of a choice between more than plain values, by label; else None."""
    written = search_spaces.categories(space) if is_domain(space) else None
    if written is None:
        return None
    _, options = written
    if not any(_is_structured(option) for option in options):
        return None
    labels = [str(label(option)) for option in options]
    counts = Counter(labels)
    return {
        f"{text}#{index}" if counts[text] > 1 else text: option
        for index, (text, option) in enumerate(zip(labels, options, strict=True))
    }


def _is_structured(option: object) -> bool:
    return any(isinstance(part, Schema | Link | ClusterResource) for _, part in walk(option))


def dimension_path(key: str) -> str:
    """Return the path of the space of a dimension, as text."""
    return key.partition(SEPARATOR)[0]


def dimensions(config: object, path: Path, chain: tuple[str, ...] = ()) -> dict[str, Schema]:
    """Return the dimensions of a configuration without options: key → space of plain values.

    Parameters
    ----------
    config
        The configuration.
    path
        Where it is: ``(stage,)``.
    chain
        The labels of the options that it is in.
    """
    return dict(_dimensions(config, path, chain))


def _dimensions(config: object, path: Path, chain: tuple[str, ...]) -> Iterator[tuple[str, Schema]]:
    if is_domain(config):
        options = options_of(config)
        if options is None:
            yield _key(path, chain), config
            return
        yield _key(path, chain), _labels(config, options)
        for text, option in options.items():
            yield from _dimensions(option, path, (*chain, text))
        return
    for name, child in children(config):
        yield from _dimensions(child, (*path, name), chain)


def _labels(space: Schema, options: Mapping[str, object]) -> Schema:
    """Return the choice between the labels of options."""
    return Schema(search_spaces.CHOICE, space.tag, [list(options)])


def _key(path: Path, chain: Iterable[str]) -> str:
    return SEPARATOR.join([path_text(path), *chain])


def joint_dimensions(configs: Iterable[tuple[object, Path]]) -> dict[str, Schema]:
    """Return the dimensions of several configurations together: the bases of one search.

    Where two of them have different spaces under one key, as elements of a grid may, each is a
    dimension of its own.
    """
    spaces: dict[str, dict[str, Schema]] = {}
    for config, path in configs:
        for key, space in dimensions(config, path).items():
            spaces.setdefault(key, {})[_digest(space)] = space
    joint = {}
    for key, by_digest in spaces.items():
        for digest, space in by_digest.items():
            joint[f"{key}{SEPARATOR}{digest}" if len(by_digest) > 1 else key] = space
    return joint


def _digest(space: Schema) -> str:
    return hashlib.sha256(canonical_text(space).encode()).hexdigest()[:6]


def put_values(
    config: object, path: Path, values: Mapping[str, object]
) -> tuple[object, dict[str, object]]:
    """Return a configuration with values for its search spaces, and those values that it uses.

    Parameters
    ----------
    config, path
        The configuration, and where it is.
    values
        The value of each dimension; those of options that are not chosen are left out.
    """
    used: dict[str, object] = {}
    return _put(config, path, (), values, used), used


def _put(
    config: object,
    path: Path,
    chain: tuple[str, ...],
    values: Mapping[str, object],
    used: dict[str, object],
) -> object:
    if not is_domain(config):
        return replace(config, lambda name, child: _put(child, (*path, name), chain, values, used))
    key = _key(path, chain)
    options = options_of(config)
    if key not in values:
        own = config if options is None else _labels(config, options)
        key = f"{key}{SEPARATOR}{_digest(own)}"
    if key not in values:
        return config
    value = used[key] = values[key]
    if options is None:
        return value
    text = str(value)
    if text not in options:  # it was an option of an earlier configuration
        return config
    return _put(options[text], path, (*chain, text), values, used)
