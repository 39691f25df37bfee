"""Where links lead: from value to value, on through options and other links."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from flambe.compile.values import Grid, Key, Link, Path, children

Scope = dict[str, tuple[Path, object]]  # what links may start from: name → its path, its value
Found = tuple[Path, object]  # a value, and where it stands

# How many steps are walked for all links of a file. What is behind them is not checked: options
# that lead to options have a product of alternatives.
MAX_STEPS = 300_000

_ANYTHING = object()
_UNCHECKED: Found = (("…",), _ANYTHING)


def is_known(value: object) -> bool:
    """Whether a value that a link leads to is known before the run."""
    return value is not _ANYTHING


class Reach:
    """Walks from value to value as links do.

    What a value stands for, and what is below it, is looked up once, so that several routes to the
    same value cost nothing.

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
        self._steps = 0
        self._alternatives: dict[Path, list[Found]] = {}
        self._reached: dict[Path, list[Found]] = {}
        self._below: dict[Path, dict[Key | None, list[Found]]] = {}
        self._plain: dict[Path, bool] = {}
        self._earliest: dict[Path, int | None] = {}

    def follow(self, target: Path) -> list[Found]:
        """Return the values at the path of a link, one for each way through options before it."""
        if len(target) == 1:
            return [self.scope[str(target[0])]]
        if target not in self._reached:
            below = self.below(target[:-1])
            reached = itertools.chain(below.get(target[-1], ()), below.get(None, ()))
            self._reached[target] = self._bounded(reached)
        return self._reached[target]

    def below(self, target: Path) -> dict[Key | None, list[Found]]:
        """Return what stands below the path of a link, by key; None stands for all keys."""
        if target not in self._below:
            table: dict[Key | None, list[Found]] = {}
            for path, value in self._bounded(self._all_alternatives(self.follow(target))):
                if value is _ANYTHING:
                    table.setdefault(None, []).append((path, value))
                for key, child in children(value):
                    table.setdefault(key, []).append(((*path, key), child))
            self._below[target] = table
        return self._below[target]

    def is_plain(self, target: Path) -> bool:
        """Whether the path of a link leads to a list or a mapping, which has no attributes."""
        if target not in self._plain:
            alternatives = self._bounded(self._all_alternatives(self.follow(target)))
            self._plain[target] = all(
                isinstance(value, Mapping | list) for _, value in alternatives
            )
        return self._plain[target]

    def earliest(self, target: Path) -> int | None:
        """Return the position of the first value that a link leads to, if it is known."""
        if target not in self._earliest:
            positions = (self.order[path] for path, _ in self.follow(target) if path in self.order)
            self._earliest[target] = min(positions, default=None)
        return self._earliest[target]

    def alternatives(self, path: Path, value: object) -> list[Found]:
        """Return what a value may turn out to be, with options and links resolved."""
        if not isinstance(value, Grid | Link):
            return [(path, value)]
        origin = path
        if isinstance(value, Link) and not value.attributes:
            origin = ("!@", *value.path)  # links to the same place share what is behind them
        if origin not in self._alternatives:
            self._alternatives[origin] = []  # links that form a cycle lead to nothing
            self._alternatives[origin] = self._bounded(self._resolved(path, value))
        return self._alternatives[origin]

    def _resolved(self, path: Path, value: Grid | Link) -> Iterator[Found]:
        if isinstance(value, Grid):
            elements = (((*path, index), element) for index, element in enumerate(value.elements))
            yield from self._all_alternatives(elements)
        elif value.attributes or value.root not in self.scope:
            yield path, _ANYTHING  # an attribute is known at run time
        else:
            yield from self._all_alternatives(self.follow(value.path))

    def _all_alternatives(self, values: Iterable[Found]) -> Iterator[Found]:
        for path, value in values:
            yield from self.alternatives(path, value)

    def _bounded(self, reached: Iterable[Found]) -> list[Found]:
        """Return values, each once, as long as there are steps left."""
        unique = dict(itertools.islice(reached, MAX_STEPS - self._steps + 1))
        self._steps = min(MAX_STEPS, self._steps + len(unique))
        return list(unique.items()) if self._steps < MAX_STEPS else [_UNCHECKED]
