"""From a file to a document.

Reading constructs nothing. What is wrong is collected, so that all of it is reported at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from pathlib import Path as FilePath

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from flambe.compile import tags
from flambe.compile.reader.anchors import link_options
from flambe.compile.reader.extension_origins import EXPECTED, wrong_origin
from flambe.compile.reader.nodes import MAX_DEPTH, MAX_VALUES, SCALARS, STANDARD, NodeReader, tag_of
from flambe.compile.reader.source import Document, Source
from flambe.compile.registry import extensions
from flambe.errors import ConfigError, Place, Problem

MAX_BYTES = 2 * 1024 * 1024
MAX_TAG = 1000


def read_file(path: str | FilePath, *, declared: Collection[str] | None = None) -> Document:
    """Read a configuration file.

    Parameters
    ----------
    path
        The file.
    declared
        Of a file that is only looked at: the extensions that its header may reach. By default it
        declares them itself, for this process.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not a configuration at all. Mistakes inside are noted in the
        document instead.
    """
    folder = str(FilePath(path).absolute().parent)
    return read_text(_text_of(path), str(path), folder, declared=declared)


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


def read_text(
    text: str,
    name: str = "<text>",
    folder: str = "",
    *,
    declared: Collection[str] | None = None,
) -> Document:
    """Read a configuration from text; see :func:`read_file`."""
    document, nodes = _open(text, name, folder)
    if declared is None:
        extensions().declare(document.extensions)
    else:
        document.undeclared, document.saved = set(document.extensions) - set(declared), True
    NodeReader(document).read(nodes[-1])
    link_options(document)
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
                document.source.position_of(nodes[2].start_mark),
                "the first is the mapping of extensions, the last is one Runnable",
            )
        )
    if len(nodes) == 2:
        _read_extensions(document, nodes[0])
    return document, nodes


class _LimitError(MarkedYAMLError):
    pass


class _BoundedScanner(Scanner):
    """Refuses long tags: the parser decodes them in a time that grows with their square."""

    def scan_tag(self) -> object:
        token = super().scan_tag()
        if token.end_mark.index - token.start_mark.index > MAX_TAG:
            problem = f"a tag of more than {MAX_TAG:,} characters"
            raise _LimitError(problem=problem, problem_mark=token.start_mark)
        return token


class _BoundedComposer(Composer):
    """Stops where there are too many nodes: a key is a node too, an alias each time."""

    count = 0

    def compose_node(self, parent: object, index: object) -> object:
        self.count += 1
        if self.count > 2 * MAX_VALUES:
            mark = self.parser.peek_event().start_mark
            raise _LimitError(problem=f"more than {MAX_VALUES:,} values", problem_mark=mark)
        return super().compose_node(parent, index)


def _compose(source: Source) -> list[Node]:
    parser = YAML(typ="safe", pure=True)
    parser.Scanner, parser.Composer = _BoundedScanner, _BoundedComposer
    parser.max_depth = MAX_DEPTH
    parser.composer.warn_double_anchors = False  # YAML 1.2: the later one counts from there on
    try:
        nodes = [node for node in parser.compose_all(source.text) if node is not None]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = source.position_of(mark) if mark else None
        message = " ".join(filter(None, (error.context, error.problem)))
        if "maximum depth" in message:
            raise ConfigError(Problem(f"nested deeper than {MAX_DEPTH}", position)) from None
        if isinstance(error, _LimitError):
            raise ConfigError(Problem(message, position)) from None
        raise ConfigError(
            _without_separator(source, position)
            or Problem(f"not valid YAML: {message}", position, _yaml_hint(position, message))
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
        reason = str(error) if isinstance(error, YAMLError) else f"the parser failed ({error!r})"
        raise ConfigError(f"{source.name}: not valid YAML: {reason}") from None
    if not nodes or all(_empty(node) for node in nodes):
        raise ConfigError(
            Problem(f"{source.name} is empty", hint="expected one Runnable, such as !Experiment")
        )
    return nodes


def _empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == f"{STANDARD}null"


def _without_separator(source: Source, position: Place | None) -> Problem | None:
    """Return what to do where a tag stands below the extensions, and nothing between them."""
    header = 0
    for number, line in enumerate(source.lines[: position.line if position else 0]):
        if re.match(r"![\w.]", line) and header:
            tag = line.split()[0]
            return Problem(
                f"'---' is missing between the extensions and {tag}",
                source.at(number, 0, len(tag)),
                "write   ---   in a line of its own above it",
            )
        if re.match(r"[A-Za-z_]\w*:\s+\S", line):
            header += 1
        elif line.strip() and not line.startswith(("#", "%")):
            return None
    return None


def _yaml_hint(position: Place | None, message: str) -> str:
    if position is None:
        return ""
    rest = position.text[position.column - 1 :]
    if "\t" in position.text:
        return "the line has a tab: YAML is indented with spaces"
    if "!@" in position.text and rest.startswith("["):
        return "in a list on one line a link with brackets is quoted:   [!@ 'stage[keyword]']"
    if position.column > 1 and rest.startswith("@"):
        return "a link is written   !@ stage   (other text that starts with @ is quoted)"
    if position.column > 1 and rest.startswith(("`", "%")):
        return "quote the value"
    if "mapping values are not allowed" in message:
        return "keywords stand under a tag, not under text: is a '!' missing in the line above?"
    if "expected <block end>" in message:
        return "keywords of one component start in the same column: see the indentation"
    if "could not find expected ':'" in message:
        return "is a ':' missing in the line above?"
    return ""


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
