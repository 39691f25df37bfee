"""Secrets never reach a log, a page or a terminal: their values are replaced where text leaves."""

from __future__ import annotations

import logging
import sys
from typing import IO, Any

MASK = "***"
# Shorter values would blot out ordinary words; they are hidden by their type alone.
SHORTEST = 4

_values: set[str] = set()


def add(value: str) -> None:
    """Hide a value from now on."""
    if len(value) >= SHORTEST:
        _values.add(value)


def values() -> frozenset[str]:
    """Return what is hidden."""
    return frozenset(_values)


def hide(text: str) -> str:
    """Return the text with every hidden value replaced."""
    for value in _values:
        if value in text:
            text = text.replace(value, MASK)
    return text


class _Stream:
    """A text stream that hides values in what is written."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(hide(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Filter(logging.Filter):
    """Hides values in log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message by one without them."""
        if _values:
            message = record.getMessage()
            record.msg, record.args = hide(message), None
        return True


def guard_streams() -> None:
    """Hide values in all that this process prints from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Stream):
            setattr(sys, name, _Stream(stream))
