"""``!env NAME``: the value of an environment variable of the machine that a run is started from.

The value is used like one that is written in the file, and remembers the variable that it came
from: it is written as ``!env`` again, and is hidden in all output where it is a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flambe.compile.values import replace, walk
from flambe.logging import redact

#: The environment variable that names, for a run that is started on another machine, the file of
#: the values that variables had on the first one.
FILE = "FLAMBE_VALUES"
KINDS = ("str", "int", "float", "bool")
_SECRET = re.compile(
    r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE
)

# What variables have as their values instead of those of this process; None is none.
_provided: dict[str, str | None] = {}


@dataclass(frozen=True)
class Variable:
    """An environment variable, as a file names it.

    Attributes
    ----------
    name
        Its name.
    default
        Its value where it is not set, by the key ``default``; empty if there is none.
    kind
        What its value is read as: one of ``KINDS``, or nothing for what it looks like.
    secret
        Whether its value is hidden in all output; None if its name says so.
    text
        The value that it had; None if it was not set.
    """

    name: str
    default: Mapping[str, object] = field(default_factory=dict)
    kind: str = ""
    secret: bool | None = None
    text: str | None = field(default=None, compare=False)

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be shown."""
        if self.secret is not None:
            return self.secret
        return bool(_SECRET.search(self.name)) or self.text in redact.values()

    def as_written(self) -> str | dict[str, object]:
        """Return what stands behind ``!env``."""
        more = {"type": self.kind} if self.kind else {}
        hidden = {} if self.secret is None else {"secret": self.secret}
        written = {"name": self.name, **self.default, **more, **hidden}
        return written if len(written) > 1 else self.name


# True, false and null cannot be told from others: they are written as they are.
class _Remembers:
    """A value with the variable that it came from; a secret is hidden from then on."""

    variable: Variable

    def __new__(cls, value: Any, variable: Variable) -> Any:
        result: Any = super().__new__(cls, value)  # type: ignore[call-arg]
        result.variable = variable
        if variable.is_secret:
            redact.add(str(value))
        return result

    def __reduce__(self) -> tuple[type, tuple[object, Variable]]:
        return type(self), (plain(self), self.variable)


class EnvText(_Remembers, str):
    """A text from an environment variable."""


class EnvInteger(_Remembers, int):
    """A whole number from an environment variable."""


class EnvNumber(_Remembers, float):
    """A number from an environment variable."""


EnvValue = EnvText | EnvInteger | EnvNumber
_PLAIN: dict[type, type] = {EnvText: str, EnvInteger: int, EnvNumber: float}
_REMEMBERING: dict[type, type] = {kind: remembering for remembering, kind in _PLAIN.items()}


def plain(value: object) -> Any:
    """Return a value without the variable that it came from."""
    kind = _PLAIN.get(type(value))
    return kind(value) if kind is not None else value


def remember(value: object, variable: Variable) -> object:
    """Return a value with the variable that it came from, if it can have one."""
    kind = _REMEMBERING.get(type(value))
    return kind(value, variable) if kind is not None else value


def resolved(value: object) -> Any:
    """Return a configuration with plain values; secrets stay variables, so that none is written."""
    if type(value) in _PLAIN:
        assert isinstance(value, EnvValue)
        return value if value.variable.is_secret else plain(value)
    return replace(value, lambda _, child: resolved(child))


def lookup(name: str) -> str | None:
    """Return the value of a variable on the machine that the run was started from."""
    return _provided[name] if name in _provided else os.environ.get(name)


def provide(values: Mapping[str, str | None]) -> None:
    """Use these values of variables instead of those of this process."""
    _provided.update(values)


def values_in(value: object) -> dict[str, str | None]:
    """Return the values that the variables in a configuration had."""
    return {variable.name: variable.text for variable in _variables(value)}


def _variables(value: object) -> Iterator[Variable]:
    for _, child in walk(value):
        if isinstance(child, EnvValue):
            yield child.variable
