"""What components raise, as bounded text that is safe in any file, socket or terminal."""

from __future__ import annotations

import traceback

# Characters of a message and of a traceback that travel, are stored and shown.
MOST_MESSAGE = 4_000
MOST_TRACEBACK = 60_000
MOST_WHOLE = 5_000_000  # … and that a log takes
_MOST_PARTS = 5  # of a group of exceptions


class UserInterrupt(KeyboardInterrupt):
    """The user interrupts; a KeyboardInterrupt that a component raises is a failure of its own."""


def clean(text: str) -> str:
    """Return text that can be encoded: half a surrogate pair is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def bounded(text: str, most: int) -> str:
    """Return text without its middle, if it is longer than so many characters."""
    if len(text) <= most:
        return text
    start = most * 3 // 4
    return f"{text[:start]} [… {len(text) - most:,} characters …] {text[start - most :]}"


def whole_message(error: BaseException) -> str:
    """Return ``ValueError: what it says``, for whatever was raised."""
    name = type(error).__name__
    if isinstance(error, SystemExit):
        return f"{name}: it called {_exit_call(error.code)}, which ends a program"
    if isinstance(error, KeyboardInterrupt) and not error.args:
        return f"{name}: raised by the component, not by Ctrl-C"
    try:
        text = str(error)
    except Exception as another:
        text = f"(its str() failed with {type(another).__name__})"
    parts = getattr(error, "exceptions", None)  # of a group, which Python 3.10 does not have
    if isinstance(parts, tuple) and all(isinstance(part, BaseException) for part in parts):
        text += "".join(f"\n  - {whole_message(part)}" for part in parts[:_MOST_PARTS])
        if len(parts) > _MOST_PARTS:
            text += f"\n  - and {len(parts) - _MOST_PARTS} more"
    return clean(f"{name}: {text}" if text else name)[:MOST_WHOLE]


def _exit_call(code: object) -> str:
    try:
        return "sys.exit()" if code is None else f"sys.exit({code!r})"
    except Exception:
        return "sys.exit(…)"


def message(error: BaseException) -> str:
    """Return the same, bounded."""
    whole = whole_message(error)
    text = bounded(whole, MOST_MESSAGE)
    return text if text is whole else f"{text}\n  the whole message is in its log"


def traceback_text(error: BaseException) -> str:
    """Return the traceback, bounded."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:
        lines = traceback.format_tb(error.__traceback__)
        text = "".join(["Traceback (most recent call last):\n", *lines, whole_message(error), "\n"])
    return bounded(clean(text), MOST_TRACEBACK)
