"""The values that a configuration is made of, besides plain scalars, lists and mappings.

Everything here is a blueprint: nothing is constructed. :func:`children` and :func:`replace` are the
one tree walk that checking, expanding, building, dumping and hashing share.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from flambe.compile.registry import CLASSES
from flambe.errors import Place

Key = str | int
Path = tuple[Key, ...]

_LINK = re.compile(
    r"(?P<root>\w[\w-]*)(?P<keys>(?:\[[^\[\]]+\])*)(?P<attributes>(?:\.[A-Za-z_]\w*)*)\Z"
)


@dataclass(frozen=True)
class Link:
    """``!@ root[key][key].attribute``: an earlier object, or one of its attributes.

    Attributes
    ----------
    root
        A pipeline stage or a resource.
    keys
        Brackets: they walk the configuration, to the object as it was built.
    attributes
        Dots: they walk the attributes of that object at run time.
    place
        Where it is written, if it is in a file.
    """

    root: str
    keys: Path = ()
    attributes: tuple[str, ...] = ()
    place: Place | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, position: Place | None = None) -> Link:
        """Read the text behind ``!@``.

        Raises
        ------
        ValueError
            If it is not of that form.
        """
        match = _LINK.match(text.strip())
        if match is None:
            raise ValueError(f"not a link: {text!r}")
        keys = re.findall(r"\[([^\[\]]+)\]", match["keys"])
        return cls(
            match["root"],
            tuple(_key(key) for key in keys),
            tuple(match["attributes"].split(".")[1:]),
            position,
        )

    @property
    def reserved(self) -> str:
        """The first attribute of the form ``__name__``: Python's own, no link leads there."""
        return next((a for a in self.attributes if re.fullmatch("__.+__", a)), "")

    @property
    def path(self) -> Path:
        """The path in the configuration that the link starts from, root included."""
        return (self.root, *self.keys)

    def __str__(self) -> str:
        return (
            self.root
            + "".join(f"[{_key_text(key)}]" for key in self.keys)
            + "".join(f".{a}" for a in self.attributes)
        )


def _key(text: str) -> Key:
    if re.fullmatch("0|[1-9][0-9]*", text) and len(text) < 20:
        return int(text)
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def _key_text(key: Key) -> str:
    # Text that would be read as something else is quoted.
    return f"'{key}'" if isinstance(key, str) and _key(key) != key else str(key)


@dataclass(frozen=True)
class Grid:
    """``!g [a, b, c]``: try each; the elements may be scalars, components or links."""

    elements: tuple[Any, ...]

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True)
class Sample:
    """``!s [low, high, n]`` or ``!s [low, high, n, decimals]``: n values, uniformly drawn.

    The values are ints if both bounds are ints, else floats. They never repeat, so that no two
    variants are equal.
    """

    low: float
    high: float
    n: int
    decimals: int | None = None

    @property
    def distinct(self) -> int:
        """How many different values there are between the bounds, at least."""
        # Floats are that far apart, or closer.
        apart = math.ulp(max(abs(self.low), abs(self.high))) if not self.whole else 1
        floats = int((self.high - self.low) / apart) + 1
        if self.whole or self.decimals is None:
            return floats
        first, last = self._steps(self.decimals)
        return min(floats, max(0, last - first + 1))

    def _steps(self, decimals: int) -> tuple[int, int]:
        """Return the first and the last multiple of a decimal between the bounds."""
        low, high = (Fraction(repr(float(bound))) * 10**decimals for bound in (self.low, self.high))
        return math.ceil(low), math.floor(high)

    @property
    def whole(self) -> bool:
        """Whether the values are ints."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def draw(self, seed: str) -> tuple[float, ...]:
        """Return the n values; the same seed gives the same values on every machine."""
        generator = random.Random(seed)
        low, high = self.low, self.high
        if self.whole and high - low < 2**31:
            # random.sample() takes a range without making it, up to a size.
            return tuple(generator.sample(range(int(low), int(high) + 1), self.n))
        values: dict[float, None] = {}
        while len(values) < self.n:
            if self.whole:
                value: float = generator.randint(int(low), int(high))
            elif self.decimals is None:
                value = generator.uniform(low, high)
            else:
                step = generator.randint(*self._steps(self.decimals))
                value = round(step / 10**self.decimals, self.decimals)
            values[value] = None
        return tuple(values)


@dataclass(frozen=True)
class ClusterResource:
    """``!cluster path-or-url``: already on the cluster, or fetched by the cluster itself."""

    location: str


class Broken:
    """Stands where a mistake was noted, so that it is not reported a second time."""


BROKEN = Broken()


@dataclass(frozen=True, eq=False)
class Anchor:
    """What blueprints have in common that are one object where they are built together.

    Attributes
    ----------
    name
        As it is written: ``&name``; empty where something around it is anchored.
    """

    name: str = ""


@dataclass(eq=False)
class Blueprint:
    """What to call, and with what: all of a :class:`~flambe.compile.Schema` but to construct it.

    Two blueprints are equal when they would be written the same.
    """

    target: str
    tag: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    place: Place | None = None
    # What a Registrable with its own from_yaml reads: the content of its node, whatever it is.
    content: Any = None
    #: Equal blueprints with one anchor are the same object, in one stage or file.
    anchor: Anchor | None = None
    #: Of the root of a file: the overrides that it was read with.
    overrides: tuple[str, ...] = ()

    def resolve(self) -> Callable[..., object]:
        """Import what is to be called."""
        target = CLASSES.import_target(self.target)
        if not callable(target):
            raise TypeError(f"{self.target} cannot be called")
        return target

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Blueprint)
            and (self.tag, self.args, self.kwargs, self.content)
            == (other.tag, other.args, other.kwargs, other.content)
            and self.target == other.target
        )

    __hash__ = None  # type: ignore[assignment]


def children(value: object) -> Iterator[tuple[Key, Any]]:
    """Yield ``(key, child)`` for everything directly below a value."""
    if isinstance(value, Blueprint):
        yield from enumerate(value.args)
        yield from value.kwargs.items()
        if value.content is not None:
            yield from children(value.content)
    elif isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, Grid):
        yield from enumerate(value.elements)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from enumerate(value)


def replace(value: object, change: Callable[[Key, Any], object]) -> Any:
    """Return the value with each child replaced by ``change(key, child)``.

    A new container is made; the value itself is left as it is.
    """
    if isinstance(value, Blueprint):
        return dataclasses.replace(
            value,
            args=[change(index, arg) for index, arg in enumerate(value.args)],
            kwargs={key: change(key, child) for key, child in value.kwargs.items()},
            content=replace(value.content, change),
        )
    if isinstance(value, Mapping):
        return {key: change(key, child) for key, child in value.items()}
    if isinstance(value, Grid):
        return Grid(tuple(change(index, child) for index, child in enumerate(value.elements)))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [change(index, child) for index, child in enumerate(value)]
    return value


def walk(value: object, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield ``(path, value)`` for a value and everything below it, parents first."""
    yield path, value
    for key, child in children(value):
        yield from walk(child, (*path, key))


def shared(value: object) -> list[list[Path]]:
    """Return the paths of each object that stands in several places, in the order of the file."""
    by_anchor: dict[Anchor, list[tuple[Blueprint, list[Path]]]] = {}
    for path, child in walk(value):
        if isinstance(child, Blueprint) and child.anchor is not None:
            groups = by_anchor.setdefault(child.anchor, [])
            for blueprint, paths in groups:
                if blueprint == child:
                    paths.append(path)
                    break
            else:
                groups.append((child, [path]))
    return [paths for groups in by_anchor.values() for _, paths in groups if len(paths) > 1]


def links(value: object) -> Iterator[tuple[Path, Link]]:
    """Yield ``(path, link)`` for each link in a value, in the order of the file."""
    for path, child in walk(value):
        if isinstance(child, Link):
            yield path, child


def path_text(path: Path) -> str:
    """Write a path as a link would: ``train[optimizer][lr]``."""
    if not path:
        return ""
    return str(path[0]) + "".join(f"[{key}]" for key in path[1:])
