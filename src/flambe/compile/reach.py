"""Where links lead: from value to value, on through options and other links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flambe.compile.values import Grid, Key, Link, Path, children

Scope = dict[str, tuple[Path, Any]]  # what links may start from: name → its path, its value
Found = tuple[Path, Any]  # a value, and where it stands

# How many values are remembered for all links of a file. Where there are more, the rest is not
# checked: options that lead to options have a product of alternatives.
MAX_ALTERNATIVES = 200_000

_ANYTHING = object()
_UNCHECKED: Found = (("…",), _ANYTHING)


class Reach:
    """Walks from value to value as links do.

    What a value stands for, and what is below it, is found once, so that many ways to the same
    place cost nothing.

    Parameters
    ----------
    scope
        What links may start from.
    order
        Path → its position in the file.
    """

    def __init__(self, scope: Scope, order: Mapping[Path, int]) -> None:
        self.scope = scope
        self.order = order
        self._alternatives: dict[Path, list[Found]] = {}
        self._reached: dict[Path, list[Found]] = {}
        self._children: dict[Path, dict[Key, Any]] = {}
        self._plain: dict[Path, bool] = {}
        self._earliest: dict[Path, int | None] = {}
        self._count = 0

    def follow(self, target: Path) -> list[Found]:
        """Return what stands at the path of a link, in all ways through options on the way."""
        if len(target) == 1:
            return [self.scope[str(target[0])]]
        if target not in self._reached:
            below = self._below(self.follow(target[:-1]), target[-1])
            self._reached[target] = self._bounded(below)
        return self._reached[target]

    def is_plain(self, target: Path) -> bool:
        """Whether there is no component at the path of a link, but lists or mappings."""
        if target not in self._plain:
            self._plain[target] = all(
                isinstance(value, Mapping | list)
                for option in self.follow(target)
                for _, value in self.alternatives(option)
            )
        return self._plain[target]

    def earliest(self, target: Path) -> int | None:
        """Return where in the file the first value stands that a link leads to, if it is known."""
        if target not in self._earliest:
            known = (self.order[path] for path, _ in self.follow(target) if path in self.order)
            self._earliest[target] = min(known, default=None)
        return self._earliest[target]

    def keys(self, target: Path) -> Iterator[Key]:
        """Yield the keys below the path of a link."""
        for option in self.follow(target):
            for path, value in self.alternatives(option):
                yield from self._table(path, value)

    def alternatives(self, option: Found) -> list[Found]:
        """Return what a value may turn out to be: no option and no link any more."""
        path, value = option
        if not isinstance(value, Grid | Link):
            return [option]
        if path not in self._alternatives:
            self._alternatives[path] = []  # where links run in a circle, they lead to nothing
            self._alternatives[path] = self._bounded(dict(self._resolved(path, value)))
        return self._alternatives[path]

    def _resolved(self, path: Path, value: Grid | Link) -> Iterator[Found]:
        if isinstance(value, Grid):
            for index, element in enumerate(value.elements):
                yield from self.alternatives(((*path, index), element))
        elif value.attributes or value.root not in self.scope:
            yield path, _ANYTHING  # an attribute is known at run time
        else:
            for target in self.follow(value.path):
                yield from self.alternatives(target)

    def _below(self, options: Iterable[Found], key: Key) -> dict[Path, Any]:
        """Return what stands at a key below values."""
        below: dict[Path, Any] = {}
        for option in options:
            for path, value in self.alternatives(option):
                table = self._table(path, value)
                if value is _ANYTHING:
                    below[path] = _ANYTHING
                elif key in table:
                    below[(*path, key)] = table[key]
        return below

    def _table(self, path: Path, value: Any) -> dict[Key, Any]:
        if path not in self._children:
            self._children[path] = dict(children(value))
        return self._children[path]

    def _bounded(self, reached: dict[Path, Any]) -> list[Found]:
        self._count += len(reached)
        return list(reached.items()) if self._count <= MAX_ALTERNATIVES else [_UNCHECKED]
