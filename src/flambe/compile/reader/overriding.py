"""Overrides: changes to a configuration on the command line, ``train.optimizer.lr=0.1``.

An override edits the nodes of the file before they are read: its value is YAML with the tags and
the checks of the file, and what is wrong with it is reported at its own place. What the forms mean
is described in ``docs/command-line.md``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import FileMark
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from flambe.compile import signatures, tags
from flambe.compile.reader.composing import compose
from flambe.compile.reader.includes import Includer
from flambe.compile.reader.source import Document, Source
from flambe.errors import ConfigError, Problem, did_you_mean, listed

EXPECTED = "expected   key=value, +key=value or ~key, such as   train.optimizer.lr=0.1"
_STANDARD = "tag:yaml.org,2002:"
_MAP, _NULL, _MERGE = f"{_STANDARD}map", f"{_STANDARD}null", f"{_STANDARD}merge"
_QUOTED = r"'[^']*'|\"[^\"]*\""
_FIRST = re.compile(rf"{_QUOTED}|[^\s.\[\]='\"]+")
_NEXT = re.compile(rf"\.(?P<name>{_QUOTED}|[^\s.\[\]='\"]+)|\[(?P<key>{_QUOTED}|[^\[\]='\"]+)\]")


@dataclass(frozen=True)
class PathStep:
    """One step of the path of an override.

    Attributes
    ----------
    text
        The keyword, or the position in a list.
    column
        Where it starts in the override.
    """

    text: str
    column: int


@dataclass(frozen=True)
class Override:
    """One override.

    Attributes
    ----------
    source
        Its text; what is read of it starts at the value.
    action
        What it does: ``"+"`` adds, ``"~"`` removes; else it sets.
    keys
        The path, in the file from its root if it is absolute.
    absolute
        Whether the path starts with a dot: its first key is a keyword, and no stage.
    """

    source: Source
    action: str
    keys: tuple[PathStep, ...]
    absolute: bool

    def name(self, length: int | None = None) -> str:
        """Return the path up to a length, for people."""
        return ".".join(key.text for key in self.keys[:length])


def parse(source: Source) -> Override:
    """Read an override.

    Raises
    ------
    ConfigError
        If it is none.
    """
    text = source.text
    action = text[:1] if text[:1] in ("+", "~") else ""
    column = len(action)
    absolute = text.startswith(".", column)
    keys = []
    match = _FIRST.match(text, column + absolute)
    while match:
        group = next((name for name, value in match.groupdict().items() if value), 0)
        keys.append(PathStep(match[group].strip("'\""), match.start(group)))
        column = match.end()
        match = _NEXT.match(text, column)
    ends = text.startswith("=", column)
    if not keys or not (ends if action != "~" else column == len(text)):
        hint = EXPECTED
        if action == "~" and ends:
            hint = f"~ removes a key, and takes no value:   {text[:column]}"
        raise ConfigError(Problem("not an override", source.at(0, column), hint))
    source.start = column + 1
    return Override(source, action, tuple(keys), absolute)


def apply(
    document: Document, root: Node, overrides: Sequence[str], includer: Includer | None = None
) -> Node:
    """Apply overrides to the root of a document, in their order; mistakes are noted.

    Parameters
    ----------
    document
        The document.
    root
        Its root, with the files that it includes.
    overrides
        As they were written.
    includer
        Includes the files that values name.
    """
    for number, text in enumerate(overrides, start=1):
        source = Source(f"override {number}", text, document.source.folder)
        document.sources[source.name] = source
        try:
            override = parse(source)
            editor = _Editor(document, override, root)
            value = _value(override)
            root = editor.edit(includer.expand(value) if includer and value else value)
        except ConfigError as error:
            for problem in error.problems:
                document.add(problem)
    return root


def _value(override: Override) -> Node | None:
    """Return the node of the value of an override."""
    if override.action == "~":
        return None
    source = override.source
    nodes = compose(source)
    if len(nodes) > 1:
        position = source.position_of(nodes[1].start_mark)
        raise ConfigError(Problem("the value of an override is one YAML value", position))
    if nodes:
        return nodes[0]
    mark = _mark(override, source.start, 0)
    return ScalarNode(_NULL, "", mark, mark)  # as a key without a value in the file


def _mark(override: Override, column: int, start: int | None = None) -> FileMark:
    # Columns of marks are counted from where the text that is composed starts.
    start = override.source.start if start is None else start
    return FileMark(override.source.name, column, 0, column - start)


class _Editor:
    """Applies one override."""

    def __init__(self, document: Document, override: Override, root: Node) -> None:
        self.document = document
        self.override = override
        self.holder = SequenceNode(f"{_STANDARD}seq", [root])
        self.resolver = YAML(typ="safe", pure=True).resolver

    def edit(self, value: Node | None) -> Node:
        """Return the root with the change; None as a value removes."""
        keys, stages, keywords = self._rooted()
        slot = _Slot(self.holder.value, 0)
        for depth, key in enumerate(keys[:-1], start=1):
            below = self._below(slot, key)
            if below is None:
                implied = depth == 1 and key.text in keywords and keys[1].text in stages
                if self.override.action != "+" and not implied:
                    raise self._unknown(slot, key, keywords if depth == 1 else ())
                mark = _mark(self.override, key.column)
                below = self._add(slot, key, MappingNode(_MAP, [], mark, mark))
            slot = below
        # What is one of several stages needs no "+" in   reduce: {train: 2}.
        is_setting = len(keys) == 2 and keys[0].text in keywords and keys[1].text in stages
        free = is_setting or (len(keys) == 1 and keys[0].text in keywords)
        self._finish(slot, keys[-1], value, free=free)
        root: Node = self.holder.value[0]
        return root

    def _finish(self, slot: _Slot, key: PathStep, value: Node | None, *, free: bool) -> None:
        """Set, add or remove the last key; ``free`` says that it is known, if it is missing."""
        below, action = self._below(slot, key), self.override.action
        if value is None:
            if below is None:
                raise self._unknown(slot, key)
            below.remove()
        elif below is not None:
            if action == "+":
                text = f"{self.override.name()} is there already"
                raise self._problem(key, text, "leave the + out to replace it")
            below.node = value
        elif action == "+" or free or _is_component(slot.node):
            # Of a component the check of keywords says whether it takes it.
            self._add(slot, key, value)
        else:
            raise self._unknown(slot, key)

    # -- the root -----------------------------------------------------------------------------

    def _rooted(self) -> tuple[list[PathStep], list[str], list[str]]:
        """Return the keys from the root of the file, the stages, and the keywords of the root."""
        root = self.holder.value[0]
        keywords = list(dict.fromkeys([*_names(root), *self._parameters(root)]))
        pipeline = next((value for key, value in _pairs(root) if key.value == "pipeline"), None)
        stages = list(_names(pipeline)) if pipeline is not None else []
        keys, first = list(self.override.keys), self.override.keys[0]
        if self.override.absolute:
            return keys, stages, keywords
        if first.text in stages and first.text in keywords:
            rest = "".join(f".{key.text}" for key in keys[1:])
            raise self._problem(
                first,
                f"{first.text!r} is a stage, and a keyword of {root.tag} too",
                f"write   pipeline.{first.text}{rest}   for the stage, "
                f"or   .{first.text}{rest}   for the keyword",
            )
        if first.text in stages:
            return [PathStep("pipeline", first.column), *keys], stages, keywords
        if first.text not in keywords and self.override.action != "+":
            names = [*stages, *keywords]
            kinds = f"the stages: {listed(stages)}; " if stages else ""
            raise self._problem(
                first,
                f"there is no stage or keyword {first.text!r}"
                if stages
                else f"there is no keyword {first.text!r}",
                did_you_mean(first.text, names) or f"{kinds}the keywords: {listed(keywords)}",
            )
        return keys, stages, keywords

    def _parameters(self, root: Node) -> list[str]:
        """Return the keywords that the class of the root takes."""
        if not _is_component(root):
            return []
        try:
            _, target = tags.resolve(
                str(root.tag).lstrip("!"), self.document.extensions, self.document.undeclared
            )
        except (Exception, SystemExit):  # reported where the file itself is read
            return []
        signature = signatures.signature(target) if callable(target) else None
        names = signature.parameters if signature else {}
        return [name for name in names if name not in ("args", "kwargs")]

    # -- below it -----------------------------------------------------------------------------

    def _below(self, slot: _Slot, key: PathStep) -> _Slot | None:
        """Return what is at a key; None if nothing is."""
        node = slot.node
        if isinstance(node, ScalarNode) and not node.value and node.tag != "!@":
            empty = _MAP if node.tag == _NULL else node.tag  # a tag without keywords
            slot.node = node = MappingNode(empty, [], node.start_mark, node.end_mark)
        if isinstance(node, MappingNode):
            for position, (name, _) in enumerate(node.value):
                if isinstance(name, ScalarNode) and name.value == key.text and name.tag != _MERGE:
                    return _Slot(node.value, position)
            return self._own(node, key)
        if isinstance(node, SequenceNode):
            if re.fullmatch("0|[1-9][0-9]{0,5}", key.text) and int(key.text) < len(node.value):
                return _Slot(node.value, int(key.text))
            return None
        depth = self._depth(key)
        above = self.override.name(depth) or "the root"
        if node.tag == "!@":
            text = f"{above} is a link (!@ {node.value})"
            hint = f"override what it leads to, or {above} as a whole"
        else:
            text, hint = f"{above} is a single value, with nothing below it", ""
        raise self._problem(key, text, hint)

    def _own(self, node: MappingNode, key: PathStep) -> _Slot | None:
        """Return a key that is merged (``<<``), copied: what it is merged from stays as it is."""
        for name, value in _pairs(node):
            if name.value == key.text:
                node.value.append((name, copy.deepcopy(value)))
                return _Slot(node.value, len(node.value) - 1)
        return None

    def _add(self, slot: _Slot, key: PathStep, value: Node) -> _Slot:
        node = slot.node
        if isinstance(node, SequenceNode):
            if key.text != str(len(node.value)):
                where = self.override.name(self._depth(key))
                text = f"{where} has {len(node.value)} elements, and none {key.text!r}"
                hint = f"+{where}.{len(node.value)}=... adds one at its end"
                raise self._problem(key, text, hint)
            node.value.append(value)
            return _Slot(node.value, len(node.value) - 1)
        assert isinstance(node, MappingNode)
        tag = f"{_STANDARD}str"
        if node.tag == _MAP:  # a key of a mapping may be a number
            tag = str(self.resolver.resolve(ScalarNode, key.text, (True, False)))
        start = _mark(self.override, key.column)
        end = _mark(self.override, key.column + len(key.text))
        node.value.append((ScalarNode(tag, key.text, start, end), value))
        return _Slot(node.value, len(node.value) - 1)

    def _depth(self, key: PathStep) -> int:
        """Return how many keys are above one."""
        return self.override.keys.index(key) if key in self.override.keys else 0

    def _unknown(self, slot: _Slot, key: PathStep, more: Collection[str] = ()) -> ConfigError:
        """Return an error: there is no such key."""
        node, above = slot.node, self.override.name(self._depth(key))
        text = f"there is no {key.text!r}" + (f" in {above}" if above else "")
        if isinstance(node, SequenceNode):
            return self._problem(key, text, f"it has {len(node.value)} elements, from 0")
        names = list(dict.fromkeys([*_names(node), *more]))
        hints = [f"it has: {listed(names)}"] if names else []
        if not self.override.action:
            hints.append(f"to add it:   +{self.override.source.text}")
        return self._problem(key, text, did_you_mean(key.text, names) or "; ".join(hints))

    def _problem(self, key: PathStep, message: str, hint: str = "") -> ConfigError:
        position = self.override.source.at(0, key.column, len(key.text))
        return ConfigError(Problem(message, position, hint))


@dataclass
class _Slot:
    """Where a node stands: in the pairs of a mapping, or in the elements of a list."""

    container: list[Any]
    position: int

    @property
    def node(self) -> Node:
        entry = self.container[self.position]
        node: Node = entry[1] if isinstance(entry, tuple) else entry
        return node

    @node.setter
    def node(self, node: Node) -> None:
        entry = self.container[self.position]
        self.container[self.position] = (entry[0], node) if isinstance(entry, tuple) else node

    def remove(self) -> None:
        del self.container[self.position]


def _is_component(node: Node) -> bool:
    """Whether a node is written with a tag of a class."""
    tag = str(node.tag)
    return not tag.startswith(_STANDARD) and tag.lstrip("!") not in tags.OPERATORS


def _pairs(node: Node, depth: int = 0) -> Iterator[tuple[ScalarNode, Node]]:
    """Yield the pairs of a mapping, and then those that are merged into it."""
    if not isinstance(node, MappingNode) or depth > 20:
        return
    merged: list[Node] = []
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            continue
        if key.tag == _MERGE:
            merged += value.value if isinstance(value, SequenceNode) else [value]
        else:
            yield key, value
    for source in merged:
        yield from _pairs(source, depth + 1)


def _names(node: Node) -> Iterator[str]:
    for key, _ in _pairs(node):
        yield str(key.value)
