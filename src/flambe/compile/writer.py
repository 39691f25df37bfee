"""Blueprints and plain data as the text of one YAML document."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.anchor import Anchor as YamlAnchor
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from flambe.compile.registered import reads_yaml
from flambe.compile.schema import Schema
from flambe.compile.values import Anchor, ClusterResource, Grid, Link, Sample
from flambe.compile.variables import EnvInteger, EnvNumber, EnvText, EnvValue


def document(value: object) -> str:
    """Return a value as YAML: plain data, blueprints, links and options."""
    text = _written(value)
    # These break a line, or are dropped, where they are not escaped.
    return _written(value, unicode=False) if re.search("[\x85\u2028\u2029\ufeff]", text) else text


def line(value: object) -> str:
    """Return a value as YAML on one line: ``!torch.Adam {lr: 0.1}``."""
    return _written(value, unicode=False, on_line=True).strip()


def _written(value: object, *, unicode: bool = True, on_line: bool = False) -> str:
    stream = io.StringIO()
    writer: Any = YAML(typ="safe", pure=True)
    writer.Representer = _LineRepresenter if on_line else _Representer
    writer.Emitter = _LineEmitter if on_line else Emitter
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    # Not folded: where a long line is broken, its rest may read as something else.
    writer.width = sys.maxsize
    writer.allow_unicode = unicode
    writer.dump(value, stream)
    # A scalar document is closed with a marker that reads oddly in a file of its own.
    text = stream.getvalue()
    return text.removesuffix("...\n") if text.endswith("\n...\n") else text


class _Representer(SafeRepresenter):
    """Writes our values; a list of scalars and links stays on one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.anchored: dict[Anchor, list[tuple[Schema, Node]]] = {}
        self.names: set[str] = set()

    def schema(self, value: Schema) -> Node:
        if value.anchor is None:
            return self.tagged(value)
        # A node that stands in several places is written as an anchor and aliases.
        nodes = self.anchored.setdefault(value.anchor, [])
        for blueprint, node in nodes:
            if blueprint == value:
                return node
        node = self.tagged(value)
        name = value.anchor.name
        if re.fullmatch(r"(?!id\d)[\w-]+", name, re.ASCII) and name not in self.names:
            self.names.add(name)
            node.anchor = YamlAnchor()
            node.anchor.value = name
        nodes.append((value, node))
        return node

    def tagged(self, value: Schema) -> Node:
        tag = f"!{value.tag}"
        if value.target and reads_yaml(value.resolve()):
            return self.content(tag, value.content)
        if not value.args:
            return self.content(tag, value.kwargs or None)
        args = value.args
        alone = len(args) == 1 and _is_scalar(args[0]) and args[0] is not None
        return self.content(tag, args[0] if alone else args)

    def content(self, tag: str, content: object) -> Node:
        if isinstance(content, Mapping):
            return self.represent_mapping(tag, content, flow_style=not content)
        if isinstance(content, list):
            return self.row(tag, content)
        if content is None:
            return self.represent_scalar(tag, "")
        node: ScalarNode = self.represent_data(content)
        # Text that would be read as something else keeps its quotes under a tag.
        quoted = isinstance(content, str) and (not content or _implicit(content))
        return self.represent_scalar(tag, node.value, style="'" if quoted else node.style)

    def text(self, value: str) -> Node:
        node: ScalarNode = self.represent_str(value)
        # The parser takes a question mark in a list on one line for a key, whatever follows it.
        node.style = "'" if value.startswith("?") and not node.style else node.style
        return node

    def link(self, value: Link) -> Node:
        return self.represent_scalar("!@", str(value))

    def cluster(self, value: ClusterResource) -> Node:
        return self.represent_scalar("!cluster", value.location)

    def variable(self, value: EnvValue) -> Node:
        return self.content("!env", value.variable.as_written())

    def sample(self, value: Sample) -> Node:
        items = [value.low, value.high, value.n]
        return self.row("!s", items if value.decimals is None else [*items, value.decimals])

    def grid(self, value: Grid) -> Node:
        return self.row("!g", value.elements)

    def plain_list(self, value: Iterable[object]) -> Node:
        return self.row("tag:yaml.org,2002:seq", value)

    def plain_dict(self, value: Mapping[object, object]) -> Node:
        return self.represent_mapping("tag:yaml.org,2002:map", value, flow_style=not value)

    def row(self, tag: str, items: Iterable[object]) -> Node:
        flow = all(_is_scalar(item) or isinstance(item, Link) for item in items)
        return self.represent_sequence(tag, items, flow_style=flow)


class _LineRepresenter(_Representer):
    """Writes everything on one line."""

    def content(self, tag: str, content: object) -> Node:
        # Within braces, a tag without a value would be written as that of an empty text.
        return super().content(tag, {} if content is None else content)

    def represent_sequence(self, tag: Any, sequence: Any, flow_style: Any = None) -> SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=True)

    def represent_mapping(self, tag: Any, mapping: Any, flow_style: Any = None) -> MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=True)

    def represent_scalar(
        self, tag: Any, value: Any, style: Any = None, anchor: Any = None
    ) -> ScalarNode:
        # A text of several lines.
        style = '"' if len(str(value).splitlines()) > 1 or str(value).endswith("\n") else style
        return super().represent_scalar(tag, value, style=style, anchor=anchor)


class _LineEmitter(Emitter):
    def expect_flow_mapping(self, single: Any = False, force_flow_indent: Any = False) -> None:
        """Write braces around a single pair, too: its tag would be read as that of its key."""
        super().expect_flow_mapping(single=False, force_flow_indent=force_flow_indent)


_Representer.add_representer(Schema, _Representer.schema)
_Representer.add_representer(str, _Representer.text)
_Representer.add_representer(Link, _Representer.link)
_Representer.add_representer(ClusterResource, _Representer.cluster)
for _kind in (EnvText, EnvInteger, EnvNumber):
    _Representer.add_representer(_kind, _Representer.variable)
_Representer.add_representer(Sample, _Representer.sample)
_Representer.add_representer(Grid, _Representer.grid)
_Representer.add_representer(list, _Representer.plain_list)
_Representer.add_representer(tuple, _Representer.plain_list)
_Representer.add_representer(dict, _Representer.plain_dict)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _implicit(text: str) -> bool:
    """Whether unquoted text would be read as something else than text."""
    tag = YAML(typ="safe", pure=True).resolver.resolve(ScalarNode, text, (True, False))
    return str(tag) != "tag:yaml.org,2002:str"
