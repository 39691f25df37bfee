"""The nodes of a YAML document to values: plain data, links, options and blueprints."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, TypeGuard

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from flambe.compile import search_spaces, tags
from flambe.compile.reader.anchors import Sharing
from flambe.compile.reader.composing import MAX_DEPTH, MAX_VALUES
from flambe.compile.reader.environment import VariableError, read_variable, value_of
from flambe.compile.reader.provenance import mismatch
from flambe.compile.reader.source import Document
from flambe.compile.registered import reads_yaml
from flambe.compile.schema import Schema
from flambe.compile.values import BROKEN, ClusterResource, Grid, Link, Path, Sample
from flambe.compile.variables import remember
from flambe.errors import Place, Problem

MAX_BOUND = 1e300  # of a sample: the distance of two bounds is a number too

STANDARD = "tag:yaml.org,2002:"
SCALARS = {f"{STANDARD}{name}" for name in ("str", "int", "float", "bool", "null")}
KEEP_TEXT = {f"{STANDARD}{name}" for name in ("timestamp", "value", "merge")}


def tag_of(node: Node) -> str:
    """Return the tag of a node, written or implied."""
    return str(node.tag)


class _TooLargeError(Exception):
    pass


class NodeReader:
    """Turns the nodes of one document into values; each mistake is noted and passed over."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0
        parser = YAML(typ="safe", pure=True)
        self.constructor, self.resolver = parser.constructor, parser.resolver
        self.open: set[int] = set()
        self.sharing = Sharing()
        self.broken = self._import_extensions()

    def _import_extensions(self) -> set[str]:
        """Import what the header declares; return the names that could not be."""
        broken = set()
        for name, origin in self.document.extensions.items():
            if name in self.document.undeclared:
                continue
            if reason := self._mismatch(name, origin):
                broken.add(name)
                position = self.document.extension_places[name]
                hint = f"run again with -i to install it from {origin}"
                self.document.add(Problem(reason, position, hint))
                continue
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # an extension may raise anything at import
                broken.add(name)
                missing = isinstance(error, ModuleNotFoundError) and error.name == name
                self.document.add(
                    Problem(
                        f"extension {name!r} cannot be imported: "
                        + (
                            "it is not installed" if missing else f"{type(error).__name__}: {error}"
                        ),
                        self.document.extension_places[name],
                        f"run again with -i to install it from {origin}" if missing else "",
                    )
                )
        return broken

    def _mismatch(self, name: str, origin: str) -> str:
        # What is declared in Python, or by the reader of a saved component, is theirs to choose.
        if not self.document.source.folder or self.document.saved:
            return ""
        return mismatch(name, origin, self.document.source.folder)

    def read(self, node: Node) -> None:
        """Make the root of the document of a node."""
        try:
            self.document.root = self.value(node, ())
        except _TooLargeError:
            self.document.add(
                Problem(
                    f"more than {MAX_VALUES:,} values, or nested deeper than {MAX_DEPTH}",
                    self.document.position_of(node.start_mark),
                    "each use of an alias counts",
                )
            )

    def _count(self, depth: int = 0) -> None:
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise _TooLargeError

    def value(self, node: Node, path: Path) -> object:
        """Return the value of a node that stands at a path."""
        self._count(len(path))
        self.document.places.values.setdefault(path, self._position_of(node))
        if id(node) in self.open:
            self.document.problem("an alias that contains itself", path)
            return BROKEN
        self.open.add(id(node))
        try:
            if tag_of(node).startswith(STANDARD):
                return self._standard(node, path)
            return self._tagged(node, path)
        finally:
            self.open.discard(id(node))

    def _position_of(self, node: Node) -> Place:
        start, end = node.start_mark, node.end_mark
        if not tag_of(node).startswith(STANDARD):
            return self.document.position_of(start, len(tag_of(node)))
        width = end.column - start.column if end.line == start.line else 1
        return self.document.position_of(start, max(1, width))

    # -- plain YAML ---------------------------------------------------------------------------

    def _standard(self, node: Node, path: Path) -> object:
        if isinstance(node, MappingNode) and node.tag == f"{STANDARD}map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == f"{STANDARD}seq":
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            if node.tag in KEEP_TEXT:
                return node.value
            if node.tag in SCALARS:
                return self._scalar(node, path)
        self.document.problem(f"the YAML tag {node.tag!r} is not allowed", path)
        return BROKEN

    def _scalar(self, node: ScalarNode, path: Path) -> object:
        try:
            value = self.constructor.construct_object(node)
            if isinstance(value, int):
                str(value)  # Python refuses to write what is longer than it would read
            return value
        except (ValueError, YAMLError, OverflowError, LookupError):
            kind = str(node.tag).removeprefix(STANDARD)
            self.document.problem(f"cannot read {node.value[:60]!r} as {kind}", path, "quote it")
            return BROKEN

    def _mapping(self, node: MappingNode, path: Path, *, names: bool = False) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        copy = Sharing()
        for key_node, value_node, is_merged in self._merged(node, path):
            key = self._key(key_node, path, names=names)
            if key is None:
                continue
            below = (*path, key)
            position = self._position_of(key_node)
            if key in result:
                first = self.document.places.keys.get(below)
                self.document.add(
                    Problem(
                        f"duplicate key {key!r}",
                        position,
                        f"it is already on line {first.line}" if first else "",
                    )
                )
                continue
            self.document.places.keys[below] = position
            with self.sharing.copying(copy) if is_merged else contextlib.nullcontext():
                result[key] = self.value(value_node, below)
        return result

    def _merged(self, node: MappingNode, path: Path) -> Iterator[tuple[Node, Node, bool]]:
        """Yield the pairs of a mapping, then those merged by ``<<`` that it does not name.

        The third part of each is whether it is merged.
        """
        own = {k.value for k, _ in node.value if isinstance(k, ScalarNode) and not _merges(k)}
        for key, value in node.value:
            if not _merges(key):
                yield key, value, False
                continue
            for pair in self._sources(value):
                if isinstance(pair[0], ScalarNode):
                    if pair[0].value in own:
                        continue
                    own.add(pair[0].value)
                yield *pair, True

    def _sources(self, value: Node) -> Iterator[tuple[Node, Node]]:
        """Yield the pairs of what ``<<`` names, with those that are merged into it in turn."""
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            if not isinstance(source, MappingNode) or id(source) in self.open:
                self.document.add(
                    Problem(
                        "'<<' merges a mapping that is defined above", self._position_of(source)
                    )
                )
                continue
            self.open.add(id(source))
            try:
                yield from (pair for pair in source.value if not _merges(pair[0]))
                for key, below in source.value:
                    self._count()
                    if _merges(key):
                        yield from self._sources(below)
            finally:
                self.open.discard(id(source))

    def _key(self, node: Node, path: Path, *, names: bool) -> Any:
        if isinstance(node, ScalarNode) and node.tag in SCALARS | KEEP_TEXT:
            key = node.value if node.tag in KEEP_TEXT else self._scalar(node, path)
            if isinstance(key, str) or (not names and isinstance(key, int | float | bool)):
                return key
        self.document.add(
            Problem(
                "expected a keyword" if names else "a key must be text or a number",
                self._position_of(node),
            )
        )
        return None

    # -- flambe's tags ------------------------------------------------------------------------

    def _tagged(self, node: Node, path: Path) -> object:
        tag = tag_of(node).lstrip("!")
        if not tag_of(node).startswith("!") or not tag:
            self.document.problem(f"the YAML tag {node.tag!r} is not allowed", path)
            return BROKEN
        if tag == "@":
            return self._link(node, path)
        if tag == "g":
            return self._grid(node, path)
        if tag == "s":
            return self._sample(node, path)
        if tag == "cluster":
            if isinstance(node, ScalarNode) and node.value:
                return ClusterResource(node.value)
            self.document.problem("!cluster takes a path or a URL", path)
            return BROKEN
        if tag == "env":
            return self._variable(node, path)
        if tag == "include":  # what is wrong with it has been noted
            return BROKEN
        return self._schema(node, tag, path)

    def _variable(self, node: Node, path: Path) -> object:
        if self.document.saved:
            hint = "load it with trust=True, if you trust its author"
            self.document.problem("a saved component may not read !env", path, hint)
            return BROKEN
        try:
            content = self._mapping(node, path) if isinstance(node, MappingNode) else node.value
            variable = read_variable(content)
            value = value_of(variable, lambda text: self._implicit(ScalarNode("", text), path))
        except VariableError as error:
            self.document.problem(error.message, path, error.hint)
            return BROKEN
        return remember(value, variable)

    def _link(self, node: Node, path: Path) -> object:
        try:
            text = node.value if isinstance(node, ScalarNode) else ""
            link = Link.parse(text, self.document.places.value(path))
            if len(link.path) > MAX_DEPTH:
                raise ValueError
            return link
        except ValueError:
            self.document.problem(
                "not a link", path, "expected   !@ stage[keyword][keyword].attribute"
            )
            return BROKEN

    def _grid(self, node: Node, path: Path) -> object:
        if not isinstance(node, SequenceNode) or not node.value:
            self.document.problem("!g takes a list of values to try", path, "expected   !g [a, b]")
            return BROKEN
        return Grid(tuple(self.value(child, (*path, i)) for i, child in enumerate(node.value)))

    def _sample(self, node: Node, path: Path) -> object:
        expected = "expected   !s [low, high, n]   or   !s [low, high, n, decimals]"
        items = (
            [self.value(c, (*path, i)) for i, c in enumerate(node.value)]
            if isinstance(node, SequenceNode)
            else []
        )
        bounds = [i for i in items[:2] if _is_number(i)]
        counts = [i for i in items[2:] if _is_number(i) and isinstance(i, int)]
        if len(items) not in (3, 4) or [*bounds, *counts] != items:
            self.document.problem("!s takes two bounds and a count", path, expected)
            return BROKEN
        (low, high), (n, *decimals) = bounds, counts
        if low > high:
            self.document.problem(f"the bounds of !s are reversed: {low} > {high}", path, expected)
        elif n < 1 or n > MAX_VALUES or (decimals and not 0 <= decimals[0] <= 15):
            self.document.problem(
                "!s draws at least 1 value, with 0 to 15 decimals", path, expected
            )
        else:
            sample = Sample(low, high, n, decimals[0] if decimals else None)
            if sample.distinct >= n:
                return sample
            self.document.problem(
                f"only {sample.distinct} different values between {low} and {high}, not {n}",
                path,
                "draw fewer",
            )
        return BROKEN

    def _cannot_import(self, tag: str, error: BaseException, path: Path) -> None:
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if missing and missing.partition(".")[0] not in ("flambe", tag.partition(".")[0]):
            problem = tags.missing_package(tag, missing)
            self.document.problem(str(problem), path, problem.hint)
        else:
            self.document.problem(f"!{tag} cannot be imported: {error!r}", path)

    def _schema(self, node: Node, tag: str, path: Path) -> Schema:
        if tag.partition(".")[0] in self.broken:
            target, callee = "", None
        else:
            try:
                document = self.document
                target, callee = tags.resolve(tag, document.extensions, document.undeclared)
            except tags.UnknownTagError as error:
                self.document.problem(str(error), path, error.hint)
                target, callee = "", None
            except (Exception, SystemExit) as error:  # a module of an extension may raise anything
                self._cannot_import(tag, error, path)
                target, callee = "", None
        schema = Schema(target, tag, place=self.document.places.value(path))
        if reads_yaml(callee):
            schema.content = self._content(node, path)
        elif isinstance(node, MappingNode):
            schema.kwargs = self._mapping(node, path, names=True)
        elif isinstance(node, SequenceNode):
            if target == search_spaces.CHOICE and not _is_list_of_one_list(node):
                # !tune.choice [a, b] is   !tune.choice [[a, b]], as Ray takes it.
                path = (*path, 0)
                schema.args = [[self.value(c, (*path, i)) for i, c in enumerate(node.value)]]
            else:
                schema.args = [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        elif node.value or _quoted(node):
            schema.args = [self._implicit(node, path)]
        self.sharing.add(node, schema)
        return schema

    def _implicit(self, node: Node, path: Path) -> object:
        """Return a scalar that has a tag of its own: its kind is found as if it had none."""
        tag = f"{STANDARD}str"
        if not _quoted(node):
            tag = str(self.resolver.resolve(ScalarNode, node.value, (True, False)))
        return self._scalar(ScalarNode(tag, node.value), path) if tag in SCALARS else node.value

    def _content(self, node: Node, path: Path) -> object:
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._implicit(node, path)


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value may be a bound of a sample."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_BOUND
    )


def _is_list_of_one_list(node: SequenceNode) -> bool:
    return len(node.value) == 1 and tag_of(node.value[0]) == f"{STANDARD}seq"


def _merges(key: Node) -> bool:
    return bool(key.tag == f"{STANDARD}merge")


def _quoted(node: Node) -> bool:
    return bool(getattr(node, "style", None))
