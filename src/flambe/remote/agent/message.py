"""Dataclasses that are read from JSON and written as JSON, for files and for the wire.

Each field says what kind of value it takes (:func:`text`, :func:`number`, …). A value that is
missing or of another kind counts as the default: what an earlier version wrote, or what was
damaged, never breaks a reader. Fields may be added; none is ever renamed.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
J = TypeVar("J", bound="Jsonable")
M = TypeVar("M", bound="Message")
E = TypeVar("E", bound=enum.Enum)


class Read(Protocol[T_co]):
    """Returns a value of one kind; raises ValueError for a value of another."""

    def __call__(self, value: object, /) -> T_co:
        """Return the value."""


@runtime_checkable
class Jsonable(Protocol):
    """What can be read from a JSON value and written as one."""

    @classmethod
    def from_json(cls: type[J], value: object) -> J:
        """Return what a JSON value holds; raise ValueError for a value of another kind."""

    def to_json(self) -> dict[str, object]:
        """Return it for :mod:`json`."""


@dataclasses.dataclass
class Message:
    """What is read from a JSON object and written as one."""

    @classmethod
    def from_json(cls: type[M], value: object) -> M:
        """Return the message that a JSON value holds; defaults, where it holds something else."""
        values = value if isinstance(value, dict) else {}
        arguments = {}
        for field in dataclasses.fields(cls):
            key = field.metadata.get("key", field.name)
            try:
                arguments[field.name] = field.metadata["read"](values[key])
            except (KeyError, ValueError):
                continue
        return cls(**arguments)

    def to_json(self) -> dict[str, object]:
        """Return the message for :mod:`json`; what is None is left out."""
        fields = dataclasses.fields(self)
        values = {f.metadata.get("key", f.name): getattr(self, f.name) for f in fields}
        return {name: plain(value) for name, value in values.items() if value is not None}


def plain(value: object) -> object:
    """Return a value for :mod:`json`: messages and enums become what stands for them there."""
    if isinstance(value, Jsonable):
        return value.to_json()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return value


# -- kinds of values ------------------------------------------------------------------------------


def read_text(value: object) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def read_flag(value: object) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise ValueError("not a boolean")
    return value


def read_integer(value: object) -> int:
    """Return an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("not an integer")
    return value


def read_number(value: object) -> float:
    """Return a number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError("not a number")
    return float(value)


def list_of(read: Read[T]) -> Read[list[T]]:
    """Return what reads a list."""

    def read_list(value: object) -> list[T]:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return [read(part) for part in value]

    return read_list


def dict_of(read: Read[T]) -> Read[dict[str, T]]:
    """Return what reads an object; parts of another kind are left out."""

    def read_dict(value: object) -> dict[str, T]:
        if not isinstance(value, dict):
            raise ValueError("not an object")
        values = {}
        for name, part in value.items():
            try:
                values[str(name)] = read(part)
            except ValueError:
                continue
        return values

    return read_dict


def read_object(kind: type[M]) -> Read[M]:
    """Return what reads a message; the empty object stands for none."""

    def read_message(value: object) -> M:
        if not isinstance(value, dict) or not value:
            raise ValueError("not an object")
        return kind.from_json(value)

    return read_message


# -- fields ---------------------------------------------------------------------------------------


def text(default: str = "", key: str = "") -> str:
    """Declare a field that holds a string; ``key`` names it in JSON, where that is another name."""
    metadata = {"read": read_text, **({"key": key} if key else {})}
    return dataclasses.field(default=default, metadata=metadata)


def flag(default: bool = False) -> bool:
    """Declare a field that holds a boolean."""
    return dataclasses.field(default=default, metadata={"read": read_flag})


def integer(default: int = 0) -> int:
    """Declare a field that holds an integer."""
    return dataclasses.field(default=default, metadata={"read": read_integer})


def number(default: float = 0.0) -> float:
    """Declare a field that holds a number."""
    return dataclasses.field(default=default, metadata={"read": read_number})


def choice(default: E) -> E:
    """Declare a field that holds a member of an enumeration."""
    return dataclasses.field(default=default, metadata={"read": type(default)})


def nested(kind: type[J]) -> J:
    """Declare a field that holds a message, which is all defaults where it is missing."""
    return dataclasses.field(default_factory=kind, metadata={"read": kind.from_json})


def optional(read: Read[T]) -> T | None:
    """Declare a field that may be missing."""
    return dataclasses.field(default=None, metadata={"read": read})


def several(read: Read[T]) -> list[T]:
    """Declare a field that holds a list."""
    return dataclasses.field(default_factory=list, metadata={"read": list_of(read)})


def by_name(read: Read[T]) -> dict[str, T]:
    """Declare a field that holds an object with values of one kind."""
    return dataclasses.field(default_factory=dict, metadata={"read": dict_of(read)})


def anything(value: object) -> object:
    """Return a value as it is."""
    return value
