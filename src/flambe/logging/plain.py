"""Text for a terminal that is text only: what it would take for an order to it is left out."""

from __future__ import annotations

import re

_END = r"(?:\x07|\x1b\\|\x9c)"
# ECMA-48: control sequences, control strings (titles, links), and all other escapes; also as C1.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    rf"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*{_END}"
    r"|\x1b[ -/]*[0-~]"
)
# What is left: bell, backspace, carriage return and others; not tab and line feed.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Return the text without escape sequences and control characters; tab and line feed stay."""
    if _CONTROLS.search(text) is None:
        return text
    return _CONTROLS.sub("", _SEQUENCES.sub("", text))
