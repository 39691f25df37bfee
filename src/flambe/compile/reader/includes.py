"""``!include part.yaml``: the content of another file, as if it were written in its place.

Included files are read while there are only nodes of YAML, so that everything after it (tags,
links, anchors, checks) sees one document. Each node keeps the place where it was written.
"""

from __future__ import annotations

import os
from pathlib import Path

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from flambe._files import read_regular
from flambe.compile.reader.composing import MAX_BYTES, MAX_VALUES, compose, decoded
from flambe.compile.reader.source import Document, Source
from flambe.errors import ConfigError, Problem, did_you_mean

TAG = "!include"
EXPECTED = "expected   !include part.yaml, a file below the folder of the configuration"
# How deep files may include one another, and how many inclusions one configuration may have.
MAX_NESTED = 10
MAX_INCLUDED = 1000


class Includer:
    """Replaces the nodes of one document that include a file by the nodes of that file.

    Two inclusions of a file are two parts of the configuration, with objects of their own.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.folder = document.source.folder and str(Path(document.source.folder).resolve())
        #: The files that are being read: each was included by the one before it.
        self.open: list[tuple[str, str]] = []
        # Inclusions that were replaced: an alias of one stands for the same part. Both nodes are
        # kept, as their ids are those of no others only as long as they exist.
        self._replaced: dict[int, tuple[Node, Node]] = {}
        self._visited: dict[int, Node] = {}
        self._count = 0
        self._bytes = 0

    def expand(self, node: Node) -> Node:
        """Return a node with all files in it that are included; mistakes are noted."""
        if node.tag == TAG:
            if id(node) not in self._replaced:
                self._replaced[id(node)] = node, self._included(node) or node
            return self._replaced[id(node)][1]
        if id(node) not in self._visited:
            self._visited[id(node)] = node
            if isinstance(node, MappingNode):
                node.value = [(key, self.expand(value)) for key, value in node.value]
            elif isinstance(node, SequenceNode):
                node.value = [self.expand(child) for child in node.value]
        return node

    def _included(self, node: Node) -> Node | None:
        """Return the node of the file that a node includes; None if that is a mistake."""
        source = self._source(node)
        if source is None:
            return None
        try:
            nodes = compose(source)
        except ConfigError as error:
            for problem in error.problems:
                self.document.add(problem)
            return None
        if len(nodes) != 1:
            message = "is empty" if not nodes else f"has {len(nodes)} YAML documents"
            hint = "an included file is one part of a configuration; "
            hint += "extensions are declared in the file that is run"
            self._problem(node, f"{source.name} {message}", hint)
            return None
        self.open.append((source.path, source.name))
        try:
            return self.expand(nodes[0])
        finally:
            self.open.pop()

    def _source(self, node: Node) -> Source | None:
        """Return the text that a node includes; None if that is a mistake."""
        if not isinstance(node, ScalarNode) or not node.value.strip():
            self._problem(node, "!include takes the path of one file", EXPECTED)
            return None
        if not self.folder or self.document.saved:
            kind = "a saved component" if self.document.saved else "a text that is in no file"
            self._problem(node, f"!include is not possible in {kind}", "write the part itself")
            return None
        origin = self.document.source_of(node.start_mark)
        folder = Path(origin.path).parent if origin.path else Path(self.folder)
        written = node.value.strip()
        # Links are followed: what they lead to must be below the folder too.
        path = (folder / written).resolve()
        name = os.path.normpath(os.path.join(os.path.dirname(self._main_name(origin)), written))
        if os.path.isabs(written) or not path.is_relative_to(self.folder):
            message = f"!include {written} leads out of the folder of the configuration"
            self._problem(node, message, f"{EXPECTED}: {self.folder}")
            return None
        if not self._is_bounded(node, str(path), name):
            return None
        text = self._read(node, path, name)
        if text is None:
            return None
        source = Source(name, text, self.document.source.folder, str(path))
        self.document.sources[name] = source
        return source

    def _main_name(self, origin: Source) -> str:
        """Return the name of the file that an inclusion is relative to."""
        return origin.name if origin.path else self.document.source.name

    def _is_bounded(self, node: Node, path: str, name: str) -> bool:
        """Return whether a file may be included here; note why not."""
        main = self.document.source
        opened = [(str(Path(self.folder, Path(main.name).name).resolve()), main.name), *self.open]
        if path in [other for other, _ in opened]:
            cycle = " → ".join([other for _, other in opened] + [name])
            self._problem(node, f"{name} includes itself: {cycle}", "remove one of the inclusions")
            return False
        self._count += 1
        if len(opened) > MAX_NESTED:
            message = f"files include one another more than {MAX_NESTED} deep"
        elif self._count > MAX_INCLUDED:
            message = f"more than {MAX_INCLUDED:,} inclusions"
        else:
            return True
        if self._count <= MAX_INCLUDED + 1:  # others are the same mistake
            self._problem(node, message, "include fewer files")
        return False

    def _read(self, node: Node, path: Path, name: str) -> str | None:
        """Return the text of a file; None if it cannot be read."""
        try:
            data = read_regular(path, MAX_BYTES + 1)
        except FileNotFoundError:
            files = [file.name for file in _files(path.parent)]
            hint = did_you_mean(path.name, files) or "paths are relative to the file that includes"
            self._problem(node, f"there is no file {name!r}", hint)
            return None
        except OSError as error:
            self._problem(node, f"cannot read {name!r}: {error.strerror or error}", EXPECTED)
            return None
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            message = f"the included files have more than {MAX_BYTES // 1024**2} MiB in all"
            self._problem(node, message, "put data in a file, and name it under resources")
            return None
        try:
            return decoded(data, name)
        except ConfigError as error:
            self._problem(node, str(error), "save the file as UTF-8")
            return None

    def _problem(self, node: Node, message: str, hint: str) -> None:
        position = self.document.position_of(node.start_mark, len(TAG))
        self.document.add(Problem(message, position, hint))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:MAX_VALUES]
    except OSError:
        return []
