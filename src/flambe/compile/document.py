"""YAML text to a tree of values that knows where each of them was written.

Reading constructs nothing. What is wrong is collected, so that all of it is reported at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from flambe.compile import tags
from flambe.compile.values import BROKEN, ClusterResource, Grid, Link, Path, Sample, Schema
from flambe.errors import ConfigError, Place, Problem

# Bounds on what one file may hold, aliases counted each time that they are used.
MAX_BYTES = 2 * 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 60
MAX_BOUND = 1e300  # of a sample: the distance of two bounds is a number too

_STANDARD = "tag:yaml.org,2002:"
_SCALARS = {f"{_STANDARD}{name}" for name in ("str", "int", "float", "bool", "null")}
_KEEP_TEXT = {f"{_STANDARD}{name}" for name in ("timestamp", "value", "merge")}


@dataclass
class Source:
    """The text of a configuration, the name that people know it by, and the folder of its file."""

    name: str
    text: str
    folder: str = ""
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.text.splitlines()

    def place(self, mark: Any, width: int = 1) -> Place:
        """Turn a mark of the YAML parser into a place."""
        return self.at(mark.line, mark.column, width)

    def at(self, line: int, column: int, width: int = 1) -> Place:
        """Return a place; line and column start at 0 here."""
        text = self.lines[line] if 0 <= line < len(self.lines) else ""
        return Place(self.name, line + 1, column + 1, width, text, self.folder)


@dataclass
class Places:
    """Where each path of a document was written: its value, and its key if it has one."""

    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def value(self, path: Path) -> Place | None:
        """Return the place of a value, or of the closest parent that has one."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path)

    def key(self, path: Path) -> Place | None:
        """Return the place of a key, or else of its value."""
        return self.keys.get(path) or self.value(path)


@dataclass
class Document:
    """A configuration as read: the extension header, and one tree of values."""

    source: Source
    extensions: dict[str, str] = field(default_factory=dict)
    root: Any = None
    places: Places = field(default_factory=Places)
    extension_places: dict[str, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, message: str, path: Path = (), hint: str = "", *, key: bool = False) -> None:
        """Note a mistake at a path."""
        place = self.places.key(path) if key else self.places.value(path)
        self.problems.append(Problem(message, place, hint))

    def raise_problems(self) -> None:
        """Raise what was noted, in the order of the file.

        Raises
        ------
        ConfigError
            If anything was.
        """
        if self.problems:
            raise ConfigError(
                sorted(
                    self.problems,
                    key=lambda p: (p.place.line, p.place.column) if p.place else (0, 0),
                )
            )


def read_file(path: str | FilePath) -> Document:
    """Read a configuration file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not a configuration at all. Mistakes inside are noted in the
        document instead.
    """
    return read_text(_text_of(path), str(path), str(FilePath(path).absolute().parent))


def _text_of(path: str | FilePath) -> str:
    name = str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(Problem(f"there is no file {name!r}", hint="check the path")) from None
    except OSError as error:
        raise ConfigError(f"cannot read {name!r}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            Problem(
                f"{name} is larger than {MAX_BYTES // 1024**2} MiB",
                hint="a configuration is small; put data in a file, and name it under resources",
            )
        )
    return decoded(data, name)


def decoded(data: bytes, name: str) -> str:
    """Return the text of a file.

    Raises
    ------
    ConfigError
        If it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}:{line}: not UTF-8 text: {error.reason}") from None


def header(path: str | FilePath) -> dict[str, str]:
    """Return the extensions that a file declares, before they can be imported.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    document, nodes = _open(_text_of(path), str(path))
    document.raise_problems()
    return document.extensions if nodes else {}


def read_text(text: str, name: str = "<text>", folder: str = "") -> Document:
    """Read a configuration from text; see :func:`read_file`."""
    document, nodes = _open(text, name, folder)
    _Reader(document).read(nodes[-1])
    return document


def _open(text: str, name: str, folder: str = "") -> tuple[Document, list[Node]]:
    """Read the header, and the nodes of the documents."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES // 1024**2} MiB")
    document = Document(Source(name, text, folder))
    nodes = _compose(document.source)
    if len(nodes) > 2:
        raise ConfigError(
            Problem(
                f"{len(nodes)} YAML documents; at most two are expected",
                document.source.place(nodes[2].start_mark),
                "the first is the mapping of extensions, the last is one Runnable",
            )
        )
    if len(nodes) == 2:
        _read_extensions(document, nodes[0])
    return document, nodes


def _compose(source: Source) -> list[Node]:
    parser = YAML(typ="safe", pure=True)
    parser.max_depth = MAX_DEPTH
    parser.composer.warn_double_anchors = False  # YAML 1.2: the later one counts from there on
    try:
        nodes = [node for node in parser.compose_all(source.text) if node is not None]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = source.place(mark) if mark else None
        message = " ".join(filter(None, (error.context, error.problem)))
        if "maximum depth" in message:
            raise ConfigError(Problem(f"nested deeper than {MAX_DEPTH}", place)) from None
        raise ConfigError(
            Problem(f"not valid YAML: {message}", place, _yaml_hint(place, message))
        ) from None
    except ReaderError as error:
        line = source.text[: error.position].count("\n")
        raise ConfigError(
            Problem(f"not valid YAML: {error.reason}", source.at(line, 0), "remove the character")
        ) from None
    except RecursionError:
        raise ConfigError(f"{source.name}: nested too deeply") from None
    except (YAMLError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as error:
        # The parser stumbles over some broken documents with errors of its own.
        told = str(error) if isinstance(error, YAMLError) else f"the parser stumbles ({error!r})"
        raise ConfigError(f"{source.name}: not valid YAML: {told}") from None
    if not nodes or all(_empty(node) for node in nodes):
        raise ConfigError(
            Problem(f"{source.name} is empty", hint="expected one Runnable, such as !Experiment")
        )
    return nodes


def _tag(node: Node) -> str:
    return str(node.tag)


def _empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == f"{_STANDARD}null"


def _yaml_hint(place: Place | None, message: str) -> str:
    if place is None:
        return ""
    rest = place.text[place.column - 1 :]
    if "\t" in place.text:
        return "the line has a tab: YAML is indented with spaces"
    if "!@" in place.text and rest.startswith("["):
        return "in a list on one line a link with brackets is quoted:   [!@ 'stage[keyword]']"
    if place.column > 1 and rest.startswith("@"):
        return "a link is written   !@ stage   (other text that starts with @ is quoted)"
    if place.column > 1 and rest.startswith(("`", "%")):
        return "quote the value"
    if "mapping values are not allowed" in message:
        return "keywords stand under a tag, not under text: does the line above lack a '!'?"
    if "expected <block end>" in message:
        return "keywords of one component start in the same column: see the indentation"
    if "could not find expected ':'" in message:
        return "does the line above lack a ':'?"
    return ""


def _read_extensions(document: Document, node: Node) -> None:
    source = document.source
    if not isinstance(node, MappingNode) or not _tag(node).startswith(_STANDARD):
        document.problems.append(
            Problem(
                "the first document is not a mapping of extensions",
                source.place(node.start_mark),
                "expected   my_ext: ./path/to/my_ext",
            )
        )
        return
    for key, value in node.value:
        place = source.place(key.start_mark, len(str(key.value)))
        if not isinstance(key, ScalarNode) or not str(key.value).isidentifier():
            document.problems.append(
                Problem("an extension is named by its top-level module", place)
            )
        elif key.value in document.extensions:
            document.problems.append(Problem(f"duplicate extension {key.value!r}", place))
        elif key.value in (*tags.PREFIXES, "flambe") or key.value in sys.stdlib_module_names:
            document.problems.append(
                Problem(f"an extension cannot be named {key.value!r}", place, "the name is taken")
            )
        elif not isinstance(value, ScalarNode) or not value.value or value.tag not in _SCALARS:
            document.problems.append(
                Problem(
                    f"where does extension {key.value!r} come from?",
                    source.place(value.start_mark),
                    "expected a folder, a Git URL or a pip requirement",
                )
            )
        else:
            document.extensions[key.value] = value.value
            document.extension_places[key.value] = place
    tags.declared.update(document.extensions)


class _TooLargeError(Exception):
    pass


class _Reader:
    """Turns the nodes of one document into values; each mistake is noted and passed over."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0
        parser = YAML(typ="safe", pure=True)
        self.constructor, self.resolver = parser.constructor, parser.resolver
        self.open: set[int] = set()
        self.broken = self._import_extensions()

    def _import_extensions(self) -> set[str]:
        """Import what the header declares; return the names that could not be."""
        broken = set()
        for name, origin in self.document.extensions.items():
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:  # an extension may raise anything at import
                broken.add(name)
                missing = isinstance(error, ModuleNotFoundError) and error.name == name
                self.document.problems.append(
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

    def read(self, node: Node) -> None:
        try:
            self.document.root = self.value(node, ())
        except _TooLargeError:
            self.document.problems.append(
                Problem(
                    f"more than {MAX_VALUES:,} values, or nested deeper than {MAX_DEPTH}",
                    self.document.source.place(node.start_mark),
                    "aliases count each time that they are used",
                )
            )

    def _count(self, depth: int = 0) -> None:
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise _TooLargeError

    def value(self, node: Node, path: Path) -> Any:
        self._count(len(path))
        self.document.places.values.setdefault(path, self._place(node))
        if id(node) in self.open:
            self.document.problem("an alias that contains itself", path)
            return BROKEN
        self.open.add(id(node))
        try:
            if _tag(node).startswith(_STANDARD):
                return self._standard(node, path)
            return self._tagged(node, path)
        finally:
            self.open.discard(id(node))

    def _place(self, node: Node) -> Place:
        start, end = node.start_mark, node.end_mark
        if not _tag(node).startswith(_STANDARD):
            return self.document.source.place(start, len(_tag(node)))
        width = end.column - start.column if end.line == start.line else 1
        return self.document.source.place(start, max(1, width))

    # -- plain YAML ---------------------------------------------------------------------------

    def _standard(self, node: Node, path: Path) -> Any:
        if isinstance(node, MappingNode) and node.tag == f"{_STANDARD}map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == f"{_STANDARD}seq":
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            if node.tag in _KEEP_TEXT:
                return node.value
            if node.tag in _SCALARS:
                return self._scalar(node, path)
        self.document.problem(f"the YAML tag {node.tag!r} is not allowed", path)
        return BROKEN

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        try:
            return self.constructor.construct_object(node)
        except (ValueError, YAMLError, OverflowError, LookupError):
            kind = str(node.tag).removeprefix(_STANDARD)
            self.document.problem(f"cannot read {node.value[:60]!r} as {kind}", path, "quote it")
            return BROKEN

    def _mapping(self, node: MappingNode, path: Path, *, names: bool = False) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in self._merged(node, path):
            key = self._key(key_node, path, names=names)
            if key is None:
                continue
            below = (*path, key)
            place = self._place(key_node)
            if key in result:
                first = self.document.places.keys.get(below)
                self.document.problems.append(
                    Problem(
                        f"duplicate key {key!r}",
                        place,
                        f"it stands in line {first.line} already" if first else "",
                    )
                )
                continue
            self.document.places.keys[below] = place
            result[key] = self.value(value_node, below)
        return result

    def _merged(self, node: MappingNode, path: Path) -> Iterator[tuple[Node, Node]]:
        """Yield the pairs of a mapping, with those merged by ``<<`` that it does not name."""
        own = {k.value for k, _ in node.value if isinstance(k, ScalarNode) and not _merges(k)}
        for key, value in node.value:
            if not _merges(key):
                yield key, value
                continue
            for pair in self._sources(value):
                if isinstance(pair[0], ScalarNode):
                    if pair[0].value in own:
                        continue
                    own.add(pair[0].value)
                yield pair

    def _sources(self, value: Node) -> Iterator[tuple[Node, Node]]:
        """Yield the pairs of what ``<<`` names, with those that are merged into it in turn."""
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            if not isinstance(source, MappingNode) or id(source) in self.open:
                self.document.problems.append(
                    Problem("'<<' merges a mapping that stands above", self._place(source))
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
        if isinstance(node, ScalarNode) and node.tag in _SCALARS | _KEEP_TEXT:
            key = node.value if node.tag in _KEEP_TEXT else self._scalar(node, path)
            if isinstance(key, str) or (not names and isinstance(key, int | float | bool)):
                return key
        self.document.problems.append(
            Problem(
                "a keyword is expected" if names else "a key is a word or a number",
                self._place(node),
            )
        )
        return None

    # -- flambe's tags ------------------------------------------------------------------------

    def _tagged(self, node: Node, path: Path) -> Any:
        tag = _tag(node).lstrip("!")
        if not _tag(node).startswith("!") or not tag:
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
        return self._schema(node, tag, path)

    def _link(self, node: Node, path: Path) -> Any:
        try:
            text = node.value if isinstance(node, ScalarNode) else ""
            return Link.parse(text, self.document.places.value(path))
        except ValueError:
            self.document.problem(
                "not a link", path, "expected   !@ stage[keyword][keyword].attribute"
            )
            return BROKEN

    def _grid(self, node: Node, path: Path) -> Any:
        if not isinstance(node, SequenceNode) or not node.value:
            self.document.problem("!g takes a list of values to try", path, "expected   !g [a, b]")
            return BROKEN
        return Grid(tuple(self.value(child, (*path, i)) for i, child in enumerate(node.value)))

    def _sample(self, node: Node, path: Path) -> Any:
        expected = "expected   !s [low, high, n]   or   !s [low, high, n, decimals]"
        items = (
            [self.value(c, (*path, i)) for i, c in enumerate(node.value)]
            if isinstance(node, SequenceNode)
            else []
        )
        numbers = all(
            isinstance(i, int | float) and not isinstance(i, bool) and abs(i) <= MAX_BOUND
            for i in items
        )
        if (
            len(items) not in (3, 4)
            or not numbers
            or not all(isinstance(i, int) for i in items[2:])
        ):
            self.document.problem("!s takes two bounds and a count", path, expected)
            return BROKEN
        low, high, n, *decimals = items
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

    def _schema(self, node: Node, tag: str, path: Path) -> Schema:
        if tag.partition(".")[0] in self.broken:
            target, found = "", None
        else:
            try:
                target, found = tags.resolve(tag, self.document.extensions)
            except tags.UnknownTagError as error:
                self.document.problem(str(error), path, error.hint)
                target, found = "", None
            except (Exception, SystemExit) as error:  # a module of an extension may raise anything
                self.document.problem(f"!{tag} cannot be imported: {error!r}", path)
                target, found = "", None
        schema = Schema(target, tag, place=self.document.places.value(path))
        if _reads_yaml(found):
            schema.content = self._content(node, path)
        elif isinstance(node, MappingNode):
            schema.kwargs = self._mapping(node, path, names=True)
        elif isinstance(node, SequenceNode):
            schema.args = [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        elif node.value or _quoted(node):
            schema.args = [self._implicit(node, path)]
        return schema

    def _implicit(self, node: Node, path: Path) -> Any:
        """Return a scalar that has a tag of its own: its kind is found as if it had none."""
        tag = f"{_STANDARD}str"
        if not _quoted(node):
            tag = str(self.resolver.resolve(ScalarNode, node.value, (True, False)))
        return self._scalar(ScalarNode(tag, node.value), path) if tag in _SCALARS else node.value

    def _content(self, node: Node, path: Path) -> Any:
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._implicit(node, path)


def _merges(key: Node) -> bool:
    return bool(key.tag == f"{_STANDARD}merge")


def _quoted(node: Node) -> bool:
    return bool(getattr(node, "style", None))


def _reads_yaml(target: Any) -> bool:
    return getattr(target, "_flambe_reads_yaml", False)
