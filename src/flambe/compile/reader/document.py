"""From a file to a document.

Reading constructs nothing. What is wrong is collected, so that all of it is reported at once.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path as FilePath

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from flambe.compile import tags
from flambe.compile.reader import overriding
from flambe.compile.reader.anchors import link_options
from flambe.compile.reader.composing import compose, read_text_of
from flambe.compile.reader.extension_origins import EXPECTED, wrong_origin
from flambe.compile.reader.includes import Includer
from flambe.compile.reader.nodes import SCALARS, STANDARD, NodeReader, tag_of
from flambe.compile.reader.source import Document, Source
from flambe.compile.registry import extensions
from flambe.compile.schema import Schema
from flambe.errors import ConfigError, Problem


def read_file(
    path: str | FilePath,
    *,
    declared: Collection[str] | None = None,
    overrides: Sequence[str] = (),
) -> Document:
    """Read a configuration file, and what it includes.

    Parameters
    ----------
    path
        The file.
    declared
        Of a file that is only looked at: the extensions that its header may reach. By default it
        declares them itself, for this process.
    overrides
        Changes to what it says: ``train.max_steps=5``, ``+key=value``, ``~key``; see
        :mod:`flambe.compile.reader.overriding`.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not a configuration at all. Mistakes inside are noted in the
        document instead.
    """
    folder = str(FilePath(path).absolute().parent)
    text = read_text_of(path)
    return read_text(text, str(path), folder, declared=declared, overrides=overrides)


def header(path: str | FilePath) -> dict[str, str]:
    """Return the extensions that a file declares, before they can be imported.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    document, nodes = _open(read_text_of(path), str(path))
    document.raise_problems()
    return document.extensions if nodes else {}


def read_text(
    text: str,
    name: str = "<text>",
    folder: str = "",
    *,
    declared: Collection[str] | None = None,
    overrides: Sequence[str] = (),
) -> Document:
    """Read a configuration from text; see :func:`read_file`."""
    document, nodes = _open(text, name, folder)
    if declared is None:
        extensions().declare(document.extensions)
    else:
        document.undeclared, document.saved = set(document.extensions) - set(declared), True
    includer = Includer(document)
    root = includer.expand(nodes[-1])
    root = overriding.apply(document, root, overrides, includer)
    NodeReader(document).read(root)
    link_options(document)
    if isinstance(document.root, Schema):
        document.root.overrides = tuple(overrides)
    return document


_EXPECTED_ROOT = "expected one Runnable, such as !Experiment"


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == f"{STANDARD}null"


def _open(text: str, name: str, folder: str = "") -> tuple[Document, list[Node]]:
    """Read the header, and the nodes of the documents."""
    document = Document(Source(name, text, folder))
    nodes = compose(document.source)
    if all(_is_empty(node) for node in nodes):
        raise ConfigError(Problem(f"{name} is empty", hint=_EXPECTED_ROOT))
    if len(nodes) > 2:
        raise ConfigError(
            Problem(
                f"{len(nodes)} YAML documents; at most two are expected",
                document.source.position_of(nodes[2].start_mark),
                "the first is the mapping of extensions, the last is one Runnable",
            )
        )
    if len(nodes) == 2:
        _read_extensions(document, nodes[0])
    return document, nodes


def _read_extensions(document: Document, node: Node) -> None:
    source = document.source
    if not isinstance(node, MappingNode) or not tag_of(node).startswith(STANDARD):
        document.add(
            Problem(
                "the first document is not a mapping of extensions",
                source.position_of(node.start_mark),
                "expected   my_ext: ./path/to/my_ext",
            )
        )
        return
    for key, value in node.value:
        position = source.position_of(key.start_mark, len(str(key.value)))
        if not isinstance(key, ScalarNode) or not str(key.value).isidentifier():
            document.add(Problem("an extension must be named by its top-level module", position))
        elif key.value in document.extensions:
            document.add(Problem(f"duplicate extension {key.value!r}", position))
        elif key.value in (*tags.PREFIXES, "flambe") or key.value in sys.stdlib_module_names:
            document.add(
                Problem(
                    f"an extension cannot be named {key.value!r}", position, "the name is taken"
                )
            )
        elif not isinstance(value, ScalarNode) or not value.value or value.tag not in SCALARS:
            document.add(
                Problem(
                    f"where does extension {key.value!r} come from?",
                    source.position_of(value.start_mark),
                    EXPECTED,
                )
            )
        elif reason := wrong_origin(value.value):
            position = source.position_of(value.start_mark)
            document.add(Problem(f"extension {key.value!r}: {reason}", position, EXPECTED))
        else:
            document.extensions[key.value] = value.value
            document.extension_places[key.value] = position
