"""Reads what stands behind ``!env``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flambe.compile.variables import KINDS, Variable, lookup
from flambe.errors import did_you_mean, listed

EXPECTED = "expected   !env NAME   or   !env {name: NAME, default: value}"
_KEYS = ("name", "default", "type", "secret")
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
}


class VariableError(Exception):
    """What is wrong with a variable.

    Attributes
    ----------
    message, hint
        As of a :class:`~flambe.errors.Problem`.
    """

    def __init__(self, message: str, hint: str = EXPECTED) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_variable(content: object) -> Variable:
    """Return the variable that is named.

    Parameters
    ----------
    content
        A name, or a mapping.

    Raises
    ------
    VariableError
        If it is neither, or the variable is not set and has no default.
    """
    options: Mapping[object, object] = (
        content if isinstance(content, Mapping) else {"name": content}
    )
    name, kind, secret = options.get("name"), options.get("type", ""), options.get("secret")
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise VariableError("!env takes the name of an environment variable")
    for key in options:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS) or f"its keys: {listed(list(_KEYS))}"
            raise VariableError(f"unknown key {key!r} for !env", hint)
    if kind not in ("", *KINDS):
        raise VariableError(f"!env has no type {kind!r}", f"the types: {listed(list(KINDS))}")
    if secret is not None and not isinstance(secret, bool):
        raise VariableError("'secret' of !env is true or false")
    default = {"default": options["default"]} if "default" in options else {}
    if not isinstance(default.get("default"), str | int | float | bool | None):
        raise VariableError("the default of !env is a single value")
    text = lookup(name)
    if text is None and not default:
        hint = f"export {name}=...   or   !env {{name: {name}, default: value}}"
        raise VariableError(f"the environment variable {name} is not set", hint)
    return Variable(name, default, str(kind), secret, text)


def value_of(variable: Variable, implicit: Callable[[str], object]) -> object:
    """Return the value of a variable.

    Parameters
    ----------
    variable
        The variable.
    implicit
        Reads a text as YAML reads it without quotes.

    Raises
    ------
    VariableError
        If it is not of the type that the variable is to have.
    """
    if variable.text is None:
        value = variable.default["default"]
    elif variable.kind == "str" or not variable.text:
        return variable.text
    else:
        value = implicit(variable.text)
    kinds = _KINDS.get(variable.kind)
    if kinds is None:
        return value
    if not isinstance(value, kinds) or (isinstance(value, bool) and variable.kind != "bool"):
        shown = "" if variable.is_secret else f": {str(value)[:60]!r}"
        message = f"the environment variable {variable.name} is not of type {variable.kind}{shown}"
        raise VariableError(message, f"set {variable.name} to another value")
    return float(value) if variable.kind == "float" and isinstance(value, int) else value
