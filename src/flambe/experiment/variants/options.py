"""The options in a stage (``!g``, ``!s`` and search spaces): found, named and resolved."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard

from flambe._grammar import is_one_line
from flambe.compile import search_spaces
from flambe.compile.schema import Schema
from flambe.compile.values import (
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
from flambe.compile.variables import EnvValue, plain
from flambe.experiment.variants.identity import canonical, canonical_text

Choices = dict[Path, object]


def is_domain(value: object) -> TypeGuard[Schema]:
    """Whether a value is a search space of Ray Tune (``!tune.loguniform …``)."""
    return isinstance(value, Schema) and search_spaces.is_space(value)


def domains(value: object) -> dict[Path, Schema]:
    """Return the search spaces in a value, by path."""
    return {path: child for path, child in walk(value) if is_domain(child)}


def has_options(value: object) -> bool:
    """Whether there is an option in a value."""
    return any(isinstance(child, Grid | Sample) for _, child in walk(value))


def option_paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of all options, those inside other options included."""
    if isinstance(value, Grid):
        yield path
        for element in value.elements:
            yield from option_paths(element, path)
    elif isinstance(value, Sample):
        yield path
    elif is_domain(value):
        yield path
        written = search_spaces.categories(value)
        for option in written[1] if written is not None else ():
            if not is_domain(option):  # it would have the path of the choice
                yield from option_paths(option, path)
    else:
        for key, child in children(value):
            yield from option_paths(child, (*path, key))


def alternatives(value: object, path: Path, seed: int) -> list[tuple[object, Choices]]:
    """Return each combination of the options in a value, with the choices that lead to it.

    What has no options is shared between the results, so that many variants stay small.
    """
    if isinstance(value, Grid):
        return _alternatives_of_grid(value, path, seed)
    if isinstance(value, Sample):
        text = f"{seed}:{path_text(path)}:{value!r}"
        return [(number, {path: number}) for number in value.draw(text)]
    if not has_options(value):
        return [(value, {})]
    keys: list[Key] = []
    options = []
    for key, child in children(value):
        keys.append(key)
        options.append(alternatives(child, (*path, key), seed))
    result = []
    for combination in itertools.product(*options):
        chosen = {key: part for key, (part, _) in zip(keys, combination, strict=True)}
        choices: Choices = {}
        for _, part in combination:
            choices.update(part)
        result.append((replace(value, _chooser(chosen)), choices))
    return result


def count_written(value: object) -> int:
    """Return how many combinations of options are written in a value, equal ones included."""
    if isinstance(value, Grid):
        return sum(map(count_written, value.elements))
    if isinstance(value, Sample):
        return value.n
    return math.prod(count_written(child) for _, child in children(value))


def _chooser(chosen: Mapping[Key, object]) -> Callable[[Key, object], object]:
    return lambda key, _: chosen[key]


def grid_elements(grid: Grid) -> Iterator[object]:
    """Yield the elements of a grid, those of a grid that is an element itself among them."""
    for element in grid.elements:
        if isinstance(element, Grid):
            yield from grid_elements(element)
        else:
            yield element


def _alternatives_of_grid(grid: Grid, path: Path, seed: int) -> list[tuple[object, Choices]]:
    """Return each value that a grid tries, once: equal values would be the same variant."""
    unique: dict[str, tuple[int, object, Choices]] = {}
    for index, element in enumerate(grid_elements(grid)):
        for resolved, choices in alternatives(element, path, seed):
            unique.setdefault(canonical_text(resolved), (index, resolved, choices))
    # Elements that share a label are distinguished by their positions.
    owners: dict[str, set[int]] = {}
    for index, resolved, _ in unique.values():
        owners.setdefault(str(label(resolved)), set()).add(index)
    result = []
    for index, resolved, choices in unique.values():
        text = label(resolved)
        unique_label = f"{text}#{index}" if len(owners[str(text)]) > 1 else text
        result.append((resolved, {path: unique_label, **choices}))
    return result


def label(value: object) -> object:
    """Return a choice for people: a scalar, or the tag or text of what was chosen."""
    if isinstance(value, EnvValue) and value.variable.is_secret:
        return f"!env {value.variable.name}"
    value = plain(value)
    if isinstance(value, str):  # a line of a log, and a cell of a table
        return value if is_one_line(value) else json.dumps(value, ensure_ascii=False)[1:-1]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Schema):
        return value.tag
    if isinstance(value, Link):
        return str(value)
    return json.dumps(_readable(value), separators=(",", ":"))[:40]


def _readable(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _readable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(child) for child in value]
    return f"!{value.tag}" if isinstance(value, Schema) else canonical(value)


def short_names(pipeline: Mapping[str, object]) -> dict[Path, str]:
    """Return, for every option of a pipeline, the shortest name that no other option has."""
    paths = list(
        dict.fromkeys(
            path for stage, value in pipeline.items() for path in option_paths(value, (stage,))
        )
    )
    occurrences = Counter(path[-length:] for path in paths for length in range(1, len(path) + 1))
    names: dict[Path, str] = {}
    for path in paths:
        for length in range(1, len(path) + 1):
            if isinstance(path[-length], int) and length < len(path):
                continue
            tail = path[-length:]
            if occurrences[tail] == 1 or length == len(path):
                names[path] = ".".join(str(key) for key in tail)
                break
    return names


def shape(value: object) -> object:
    """Return a key that two values share if they may turn out equal."""
    if isinstance(value, Schema):
        return value.target, len(value.args), frozenset(value.kwargs)
    if isinstance(value, Mapping):
        return Mapping, frozenset(map(str, value))
    if isinstance(value, list | tuple):
        return list, len(value)
    return Link if isinstance(value, Link) else None
