"""A configuration as flat values by path: ``pipeline.train.optimizer.lr`` → ``0.01``.

Nothing in it is imported: tags are text here. So runs of any code can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_VALUES = 50_000  # an alias may repeat a part of the file many times
DEEPEST = 60
LONGEST_LIST = 200  # characters of a list on one line
_STANDARD = "tag:yaml.org,2002:"


def flat_values(text: str) -> dict[str, str]:
    """Return the values of a configuration by path; none of text that is not YAML.

    Names, tags and scalars are as they are written; the header of extensions is below
    ``extensions``.
    """
    try:
        documents = [node for node in YAML(typ="safe", pure=True).compose_all(text) if node]
    except (YAMLError, ValueError, RecursionError, AttributeError, TypeError, AssertionError):
        return {}
    values: dict[str, str] = {}
    for number, node in enumerate(documents):
        is_header = number < len(documents) - 1
        for path, value in _walk(node, "extensions" if is_header else "", 0):
            if len(values) >= MOST_VALUES:
                return values
            values[path] = value
    return values


def _walk(node: Node, path: str, depth: int) -> Iterator[tuple[str, str]]:
    tag = _tag(node)
    if isinstance(node, ScalarNode) or depth > DEEPEST:
        yield path or "(root)", f"{tag} {_text(node)}".strip()
        return
    children = list(_children(node))
    if (line := _as_line(node)) is not None:
        yield path or "(root)", f"{tag} {line}".strip()
        return
    if tag:
        yield path or "(root)", tag
    for key, child in children:
        below = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else key
        yield from _walk(child, below, depth + 1)


def _children(node: Node) -> Iterator[tuple[str | int, Node]]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield str(key.value) if isinstance(key, ScalarNode) else "?", value
    elif isinstance(node, SequenceNode):
        yield from enumerate(node.value)


def _as_line(node: Node) -> str | None:
    """Return a list of scalars, or what is empty, on one line; None for all else."""
    if isinstance(node, MappingNode):
        return "{}" if not node.value else None
    if not isinstance(node, SequenceNode):
        return None
    if not all(isinstance(child, ScalarNode) for child in node.value):
        return None
    line = ", ".join(f"{_tag(child)} {_text(child)}".strip() for child in node.value)
    return f"[{line}]" if len(line) <= LONGEST_LIST else None


def _tag(node: Node) -> str:
    tag = str(node.tag or "")
    return "" if tag.startswith(_STANDARD) or tag == "!" else tag


def _text(node: Node) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else "…"
