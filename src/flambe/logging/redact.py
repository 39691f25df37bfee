"""Secrets never reach a log, a page or a terminal: their values are replaced where text leaves."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import logging
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import IO
from urllib.parse import unquote

from flambe.errors import ComponentError, FlambeError, RunError
from flambe.logging.encodings import encodings

MASK = "***"
# Shorter values would mask ordinary words.
SHORTEST = 4

_values: set[str] = set()
# The values, and how each may be written; the longest first: a shorter one may be a part of it.
_forms: tuple[str, ...] = ()
_changing = threading.Lock()
_encodings = functools.lru_cache(maxsize=None)(encodings)


def add(value: str) -> None:
    """Hide a value from now on; of one with several lines, each: text is often taken by lines."""
    parts = {part for part in (str(value), *value.splitlines()) if len(part) >= SHORTEST}
    with _changing:
        if not parts <= _values:
            _values.update(parts)
            _index()


def _index() -> None:
    global _forms  # noqa: PLW0603
    forms = {form for value in _values for form in _encodings(value) if len(form) >= SHORTEST}
    _forms = tuple(sorted(forms, key=len, reverse=True))


def add_url(url: str) -> None:
    """Hide the password of a URL, both percent-encoded, as written, and decoded."""
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
    """Return the text with every hidden value replaced, also where it is encoded."""
    for form in _forms:
        if form in text:
            text = text.replace(form, MASK)
    return text


def unfinished(text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a hidden value.

    What is before them can be hidden by itself: no value is across the border.
    """
    begun = max((_begun(text, form) for form in _forms), default=0) if text else 0
    cut = len(text) - begun
    across = begun > 0
    while across:
        across = False
        for form in _forms:
            start = text.find(form, max(0, cut - len(form) + 1), cut + len(form) - 1)
            if -1 < start < cut:
                cut, across = start, True
    return len(text) - cut


def _begun(text: str, form: str) -> int:
    """Return how many characters at the end of a text are the beginning of a form of a value."""
    end = form.rfind(text[-1], 0, len(form) - 1)
    while end >= 0 and not text.endswith(form[: end + 1]):
        end = form.rfind(text[-1], 0, end)
    return end + 1


def holds(error: Exception) -> bool:
    """Whether a hidden value is in an error, its traceback, or what it came from."""
    text = "".join(traceback.format_exception(error))
    return hide(text) != text


def hidden(error: Exception) -> FlambeError:
    """Return an error that says the same without the hidden values."""
    if isinstance(error, ComponentError):
        position = error.place
        if position is not None:
            position = dataclasses.replace(position, text=hide(position.text))
        texts = [hide(text) for text in (error.what, error.traceback, error.frame)]
        return ComponentError(hide(error.message), position, *texts)
    return RunError(f"{type(error).__name__}: {hide(str(error))}")


class _Stream:
    """A text stream that hides values in what is written, also in pieces.

    What may be the beginning of a value at the end of a line that is not whole yet is held back
    until more is written, or the process ends.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._rest = ""
        self._writing = threading.RLock()
        atexit.register(self.release)

    def write(self, text: str) -> int:
        with self._writing:
            waiting = self._rest + text
            held = unfinished(waiting[waiting.rfind("\n") + 1 :])
            end = len(waiting) - held
            self._rest = waiting[end:]
            if end:
                self._stream.write(hide(waiting[:end]))
        return len(text)

    def release(self) -> None:
        """Write what is held back."""
        with self._writing:
            rest, self._rest = self._rest, ""
            # It may be closed by then, or its reader gone.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(hide(rest))
                self._stream.flush()

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
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
