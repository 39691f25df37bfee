"""``environment`` of a cluster: its keywords, and what may be wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from flambe._grammar import wrong_path, wrong_url
from flambe.cluster.environment.interpreter import OLDEST
from flambe.cluster.options import Finding
from flambe.errors import did_you_mean
from flambe.logging import redact
from flambe.runnable.secrets import Secret

# What is wrong with a value, and what is expected; nothing if it is right.
Check = Callable[[Any], tuple[str, str] | None]


# What says how packages come to the hosts.
INDEXES = ("https", "http", "file")  # schemes
DOWNLOADS = ("index_url", "find_links", "offline", "python")


def _hidden(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords whose secrets are hidden from here on."""
    options = dict(written)
    for key in ("proxy", "index_url"):
        if isinstance(options.get(key), str):
            redact.add_url(options[key])
            options[key] = Secret(options[key])
    return options


def findings(written: Any) -> Iterator[Finding]:
    """Yield what is wrong with the keywords of a file."""
    if not isinstance(written, Mapping):
        return  # its type is checked as any other's
    # A finding shows its line, and the proxy may stand in it.
    options = _hidden(written)
    for key, value in options.items():
        if key not in KEYWORDS:
            hint = did_you_mean(str(key), KEYWORDS) or f"expected {', '.join(KEYWORDS)}"
            yield ("environment", key), f"environment: unknown keyword {key!r}", hint
        elif problem := KEYWORDS[key](value):
            what, hint = problem
            yield ("environment", key), f"environment: {key} {what}", hint
        elif key in DOWNLOADS and value and options.get("system") is True:
            what = f"environment: with system nothing is installed, and {key} means nothing"
            yield ("environment", key), what, f"leave out {key}, or system"


def _yes_or_no(value: Any) -> tuple[str, str] | None:
    return None if isinstance(value, bool) else (f"cannot be {value!r}", "true or false")


def _names(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        return f"cannot be {value!r}", "a list of names: [learn]"
    known = sorted(metadata.metadata("flambe").get_all("Provides-Extra") or ())
    for one in value:
        if one not in known:
            hint = did_you_mean(one, known) or f"there are: {', '.join(known)}"
            return f"names {one!r}, which flambe does not have", hint
    return None


def _places(value: Any) -> tuple[str, str] | None:
    values = value if isinstance(value, (list, tuple)) else [value]
    if values and all(_is_place(one) for one in values):
        return None
    return f"cannot be {value!r}", "a folder or a URL, or a list of them"


def _place(value: Any) -> tuple[str, str] | None:
    if _is_place(value):
        return None
    return f"cannot be {value!r}", "a URL, or a folder on the orchestrator"


def _is_place(value: Any) -> bool:
    """Whether it is a URL or a path, which uv does not take for an option."""
    if not isinstance(value, str) or value.startswith("-"):
        return False
    return not (wrong_url(value, *INDEXES) if "://" in value else wrong_path(value))


def _url(value: Any) -> tuple[str, str] | None:
    if isinstance(value, str) and not wrong_url(value, *INDEXES):
        return None
    return "is not a URL", "such as https://host/simple"


def _proxy(value: Any) -> tuple[str, str] | None:
    """Check it without a word of what it is: it may hold a password."""
    hint = "such as http://proxy:3128"
    if not isinstance(value, str):
        return "is not a URL", hint
    what = wrong_url(value, "http", "https")
    if "port" in what:
        return what, hint
    return ("is not the URL of an HTTP proxy", hint) if what else None


def _python(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, str):  # YAML takes 3.10 for a number, which is 3.1
        return f"cannot be {value!r}", "a version in quotes: '3.12'"
    if not re.fullmatch(r"3\.\d+(\.\d+)?", value):
        return f"cannot be {value!r}", "a version such as '3.12' or '3.12.4'"
    if int(value.split(".")[1]) < OLDEST.minor:
        return f"cannot be {value}", f"flambe needs {OLDEST} or newer"
    return None


KEYWORDS: dict[str, Check] = {
    "extras": _names,
    "index_url": _url,
    "find_links": _places,
    "offline": _yes_or_no,
    "system": _yes_or_no,
    "proxy": _proxy,
    "python": _python,
    "python_mirror": _place,
}
