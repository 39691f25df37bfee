"""How a value may be written where text leaves: as it is, and in the encodings that are common."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from urllib.parse import quote, quote_plus

_URL_SAFE = str.maketrans("+/", "-_")


def encodings(value: str) -> frozenset[str]:
    """Return the forms of a value: percent, JSON, ``repr``, HTML, shell, hexadecimal and base64.

    Of base64, also what it is within the encoding of a longer text (``user:password``, say), less
    the few bits that its first and last byte share with their neighbours.
    """
    data = value.encode("utf-8", "surrogatepass")
    percent = [quote(data, safe=""), quote(data), quote_plus(data)]
    return frozenset(
        [
            value,
            *percent,
            *(re.sub("%..", lambda match: match[0].lower(), text) for text in percent),
            json.dumps(value)[1:-1],
            json.dumps(value, ensure_ascii=False)[1:-1],
            repr(value)[1:-1],
            ascii(value)[1:-1],
            repr(data)[2:-1],
            html.escape(value),
            shlex.quote(value).removeprefix("'").removesuffix("'"),
            data.hex(),
            data.hex().upper(),
            *_base64(data),
        ]
    )


def _base64(data: bytes) -> list[str]:
    forms = [base64.b64encode(data).decode()]
    for before in range(3):  # three bytes are four characters: so many ways to be aligned
        text = base64.b64encode(bytes(before) + data).decode()
        # Characters of six bits; those at the ends have bits of the neighbours too.
        first, last = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        forms.append(text[first:last])
    return [*forms, *(form.translate(_URL_SAFE) for form in forms)]
