"""Secrets never reach a log, a page or a terminal: their values are replaced where text leaves."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import unquote

from flambe.errors import ComponentError, FlambeError, RunError

MASK = "***"
# Shorter values would blot out ordinary words; they are hidden by their type alone.
SHORTEST = 4

_values: set[str] = set()


def add(value: str) -> None:
    """Hide a value from now on; of one with several lines, each: text is often taken by lines."""
    _values.update(part for part in (value, *value.splitlines()) if len(part) >= SHORTEST)


def add_url(url: str) -> None:
    """Hide the password of a URL, as it is written in it and as it is meant."""
    login, at, _ = (url.partition("://")[2] or url).rpartition("@")
    password = login.partition(":")[2]
    if at and password:
        add(login + at)
        add(password)
        add(unquote(password))


def values() -> frozenset[str]:
    """Return what is hidden."""
    return frozenset(_values)


def hide(text: str) -> str:
    """Return the text with every hidden value replaced."""
    # The longest first: a shorter one may be a part of it.
    for value in sorted(_values, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MASK)
    return text


def holds(error: Exception) -> bool:
    """Whether a hidden value is in an error, its traceback, or what it came from."""
    text = "".join(traceback.format_exception(error))
    return hide(text) != text


def hidden(error: Exception) -> FlambeError:
    """Return an error that says the same without the hidden values."""
    if isinstance(error, ComponentError):
        place, what = error.place, error.what
        shown = [hide(text) for text in (error.traceback, error.frame)]
        return ComponentError(hide(error.message), place, what, *shown)
    return RunError(f"{type(error).__name__}: {hide(str(error))}")


class _Stream:
    """A text stream that hides values in what is written."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(hide(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Filter(logging.Filter):
    """Hides values in log records, their tracebacks included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message by one without them."""
        if _values:
            message = record.getMessage()
            record.msg, record.args = hide(message), None
            if record.exc_info and not record.exc_text:
                # A formatter takes this text, where there is one, as it is.
                record.exc_text = logging.Formatter().formatException(record.exc_info)
            if record.exc_text:
                record.exc_text = hide(record.exc_text)
        return True


def guard_streams() -> None:
    """Hide values in all that this process prints from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream))
