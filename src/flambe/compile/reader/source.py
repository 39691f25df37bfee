"""A configuration as read: its text, its values, and where each of them was written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml.error import StreamMark as Mark

from flambe.compile.values import Path
from flambe.errors import ConfigError, Place, Problem

MAX_PROBLEMS = 100  # mistakes that are listed of one file
MAX_MESSAGE = 1000  # characters: names and values are quoted in messages, and may be long


@dataclass
class Source:
    """A text that configurations are read from.

    Attributes
    ----------
    name
        What people know it by: the file, or ``override 1``.
    text
        The text.
    folder
        The folder of the configuration: what paths in it are relative to.
    path
        Its file, if it is an included one.
    start
        The column in its first line where what is read begins.
    """

    name: str
    text: str
    folder: str = ""
    path: str = ""
    start: int = 0
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.text.splitlines()

    def position_of(self, mark: Mark, width: int = 1) -> Place:
        """Turn a mark of the YAML parser into a place."""
        return self.at(mark.line, mark.column + (0 if mark.line else self.start), width)

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
    #: The other texts that it was read from, by name: included files, and overrides.
    sources: dict[str, Source] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    #: Those of them that the reader of a saved component did not declare: see tags.resolve().
    undeclared: set[str] = field(default_factory=set)
    #: Whether it describes a saved component: where its extensions came from is history.
    saved: bool = False
    root: Any = None
    places: Places = field(default_factory=Places)
    extension_places: dict[str, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def source_of(self, mark: Mark) -> Source:
        """Return the text that a mark of the YAML parser is in."""
        return self.sources.get(mark.name, self.source)

    def position_of(self, mark: Mark, width: int = 1) -> Place:
        """Turn a mark of the YAML parser into a place."""
        return self.source_of(mark).position_of(mark, width)

    def problem(self, message: str, path: Path = (), hint: str = "", *, key: bool = False) -> None:
        """Note a mistake at a path; see :meth:`add`."""
        position = self.places.key(path) if key else self.places.value(path)
        self.add(Problem(message, position, hint))

    def add(self, problem: Problem) -> None:
        """Note a mistake.

        Raises
        ------
        ConfigError
            If there are too many: a suggestion for each of 100,000 names would take hours.
        """
        if len(self.problems) == MAX_PROBLEMS:
            self.problems.append(
                Problem(f"more than {MAX_PROBLEMS} mistakes; the rest is left out")
            )
            self.raise_problems()
        message, hint = _shortened(problem.message), _shortened(problem.hint)
        self.problems.append(replace(problem, message=message, hint=hint))

    def raise_problems(self) -> None:
        """Raise what was noted, in the order of the file.

        Raises
        ------
        ConfigError
            If anything was.
        """
        if self.problems:
            order = {name: rank for rank, name in enumerate([self.source.name, *self.sources])}
            raise ConfigError(
                sorted(
                    self.problems,
                    key=lambda p: (
                        (order.get(p.place.file, 0), p.place.line, p.place.column)
                        if p.place
                        else (0, 0, 0)
                    ),
                )
            )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"
