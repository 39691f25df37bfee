"""From text to the nodes of YAML, each with a mark that says where it was written."""

from __future__ import annotations

import io
import re
from pathlib import Path as FilePath

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner

from flambe.compile.reader.source import Source
from flambe.errors import ConfigError, Place, Problem

MAX_BYTES = 2 * 1024 * 1024
MAX_TAG = 1000
# Bounds on what one file may hold, aliases counted each time that they are used.
MAX_VALUES = 100_000
MAX_DEPTH = 60


def read_text_of(path: str | FilePath) -> str:
    """Return the text of a configuration file.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
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


class _NamedText(io.StringIO):
    """A text with the name that its marks have, by which a document finds their source."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.text[source.start :])
        self.name = source.name


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


def compose(source: Source) -> list[Node]:
    """Return the nodes of the documents of a text; none where it has nothing but comments.

    Raises
    ------
    ConfigError
        If it is not valid YAML, or too large.
    """
    if len(source.text) > MAX_BYTES:
        raise ConfigError(f"{source.name} is larger than {MAX_BYTES // 1024**2} MiB")
    parser = YAML(typ="safe", pure=True)
    parser.Scanner, parser.Composer = _BoundedScanner, _BoundedComposer
    parser.max_depth = MAX_DEPTH
    parser.composer.warn_double_anchors = False  # YAML 1.2: the later one counts from there on
    try:
        nodes = [node for node in parser.compose_all(_NamedText(source)) if node is not None]
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
    return nodes


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
