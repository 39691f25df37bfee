"""Anchors: a component that is written once, and stands in several places, is one object.

``&m !Model`` and ``*m`` in one stage, or in a file without stages, are the same object. Its
blueprints have one :class:`~flambe.compile.values.Anchor`, by which they are built once and written
as they were read. Where there are options in it, what stands for it later becomes a link, so that
it is the same one in each variant too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ruamel.yaml.nodes import Node

from flambe.compile import annotation_checks as types
from flambe.compile import search_spaces, signatures
from flambe.compile.reader.source import Document
from flambe.compile.schema import Schema
from flambe.compile.values import BROKEN, Anchor, Grid, Key, Link, Path, Sample, replace, walk

_IN_OPTION = "stands in an option (!g), which not every variant has"


class Sharing:
    """Gives the blueprints of one node one anchor."""

    def __init__(self) -> None:
        self._first: dict[int, Schema] = {}

    def add(self, node: Node, schema: Schema) -> None:
        """Register the blueprint that was read from a node, each time that it is read."""
        if search_spaces.is_space(schema):
            return  # an option, which is drawn from wherever it stands
        first = self._first.setdefault(id(node), schema)
        if first is not schema:
            first.anchor = first.anchor or Anchor(str(node.anchor or ""))
            schema.anchor = first.anchor

    @contextlib.contextmanager
    def copying(self, copy: Sharing) -> Iterator[None]:
        """Read what ``<<`` merges into a mapping: it is a copy, with objects of its own."""
        before, self._first = self._first, copy._first
        try:
            yield
        finally:
            self._first = before


def link_options(document: Document) -> None:
    """Replace what stands for an anchored component with options in it by a link to that one."""
    root = document.root
    if not isinstance(root, Schema) or not root.target:
        return
    for keyword in getattr(root.resolve(), "_flambe_scopes", ()):
        entries = root.kwargs.get(keyword)
        if not isinstance(entries, dict):
            continue
        for name, value in entries.items():
            if any(isinstance(child, Schema) and child.anchor for _, child in walk(value)):
                entries[name] = _Linker(document, (keyword,)).visit(
                    value, _Position((name,), (name,))
                )


@dataclass(frozen=True)
class _Position:
    """Where a value stands: its path, the path of a link to it, and the options that it is in."""

    path: Path
    link: Path
    options: tuple[tuple[Path, Key], ...] = ()

    def below(self, parent: object, key: Key) -> _Position:
        if isinstance(parent, Grid):
            chosen = (*self.options, (self.path, key))
            return _Position((*self.path, key), self.link, chosen)
        return _Position((*self.path, key), (*self.link, key), self.options)


@dataclass
class _Occurrences:
    """Where an anchored component stands, by the options that it is in: a tree of them.

    Attributes
    ----------
    position
        Where it stands outside of all further options.
    below
        An option → its element → where it stands in there.
    """

    position: _Position | None = None
    below: dict[Path, dict[Key, _Occurrences]] = field(default_factory=dict)

    def find(self, options: Sequence[tuple[Path, Key]]) -> tuple[_Position | None, bool]:
        """Return where it stands in every variant that has these elements, if it does.

        The second value is whether it stands in some of these variants only.
        """
        if self.position is not None or not options:
            return self.position, bool(self.below)
        (option, element), *rest = options
        branch = self.below.get(option, {}).get(element, _Occurrences())
        position, sometimes = branch.find(rest)
        return position, sometimes or bool(self.below.keys() - {option})

    def add(self, position: _Position) -> None:
        """Add a place where it stands."""
        branch = self
        for option, element in position.options:
            branch = branch.below.setdefault(option, {}).setdefault(element, _Occurrences())
        branch.position = position


class _Linker:
    """Walks one stage, in the order in which it is built."""

    def __init__(self, document: Document, above: Path) -> None:
        self.document = document
        self.above = above
        self._occurrences: dict[Anchor, _Occurrences] = {}
        self._has_options: dict[Anchor, bool] = {}

    def visit(self, value: object, position: _Position) -> object:
        """Return the value with links in it."""
        if isinstance(value, Schema):
            if value.anchor is not None and self._varies(value.anchor, value):
                occurrences = self._occurrences.setdefault(value.anchor, _Occurrences())
                first, sometimes = occurrences.find(position.options)
                if first is not None:
                    return self._link(value, first, position)
                if sometimes:
                    return self._refuse(value, position, _IN_OPTION)
                occurrences.add(position)
            blueprints = set(_blueprints(value))
            return replace(
                value,
                lambda key, child: (
                    child if key in blueprints else self.visit(child, position.below(value, key))
                ),
            )
        return replace(value, lambda key, child: self.visit(child, position.below(value, key)))

    def _varies(self, anchor: Anchor, schema: Schema) -> bool:
        if anchor not in self._has_options:
            self._has_options[anchor] = any(
                isinstance(child, Grid | Sample) or search_spaces.is_space(child)
                for _, child in walk(schema)
            )
        return self._has_options[anchor]

    def _link(self, schema: Schema, first: _Position, position: _Position) -> object:
        link = Link(str(first.link[0]), first.link[1:], place=schema.place)
        with contextlib.suppress(ValueError):
            if Link.parse(str(link)) == link:
                return link
        return self._refuse(schema, position, "stands below a key that no link can name")

    def _refuse(self, schema: Schema, position: _Position, why: str) -> object:
        name = schema.anchor.name if schema.anchor is not None else ""
        self.document.problem(
            f"*{name} and &{name} are one !{schema.tag}, and what it has of options is chosen "
            f"once; but &{name} {why}",
            (*self.above, *position.path),
            "write the component once more instead of the alias",
        )
        return BROKEN


def _blueprints(schema: Schema) -> Iterator[Key]:
    """Yield the keys of a blueprint whose values the object takes as blueprints."""
    if not schema.target:
        return
    target = schema.resolve()
    hints = types.hints(target)
    signature = signatures.signature(target)
    names = list(signature.parameters) if signature else []
    for index, name in itertools.islice(enumerate(names), len(schema.args)):
        if types.wants_schema(hints.get(name)):
            yield index
    for name in schema.kwargs:
        if types.wants_schema(hints.get(name)):
            yield name
