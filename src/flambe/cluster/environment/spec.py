"""The keywords of ``environment`` in a cluster file, and the checks of their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

from flambe._grammar import wrong_path, wrong_url
from flambe.cluster.environment.interpreter import OLDEST
from flambe.cluster.options import Finding
from flambe.errors import did_you_mean
from flambe.logging import redact
from flambe.runnable.secrets import Secret

#: Returns the problem of a value and what is expected instead; None if the value is right.
Check = Callable[[object], tuple[str, str] | None]

INDEX_SCHEMES = ("https", "http", "file")
#: The keywords that say how packages are downloaded.
DOWNLOADS = ("index_url", "find_links", "offline", "python")


def findings(keywords: object) -> Iterator[Finding]:
    """Yield the problems of the keywords in a cluster file."""
    if not isinstance(keywords, Mapping):
        return  # its type is checked as that of any other keyword
    # A finding shows its line, which may contain the proxy.
    options = _hidden(keywords)
    for key, value in options.items():
        if key not in KEYWORDS:
            hint = did_you_mean(str(key), KEYWORDS) or f"expected {', '.join(KEYWORDS)}"
            yield ("environment", key), f"environment: unknown keyword {key!r}", hint
        elif finding := KEYWORDS[key](value):
            problem, hint = finding
            yield ("environment", key), f"environment: {key} {problem}", hint
        elif key in DOWNLOADS and value and options.get("system") is True:
            problem = f"environment: with system nothing is installed, and {key} means nothing"
            yield ("environment", key), problem, f"leave out {key}, or system"


def _hidden(keywords: Mapping[str, object]) -> dict[str, object]:
    """Return keywords whose secrets are hidden from here on."""
    options = dict(keywords)
    for key in ("proxy", "index_url"):
        url = options.get(key)
        if isinstance(url, str):
            redact.add_url(url)
            options[key] = Secret(url)
    return options


def _check_flag(value: object) -> tuple[str, str] | None:
    return None if isinstance(value, bool) else (f"cannot be {value!r}", "true or false")


def _check_extras(value: object) -> tuple[str, str] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return f"cannot be {value!r}", "a list of names: [learn]"
    extras = sorted(metadata.metadata("flambe").get_all("Provides-Extra") or ())
    for name in value:
        if name not in extras:
            hint = did_you_mean(name, extras) or f"available: {', '.join(extras)}"
            return f"names {name!r}, which flambe does not have", hint
    return None


def _check_locations(value: object) -> tuple[str, str] | None:
    values = value if isinstance(value, list | tuple) else [value]
    if values and all(_is_location(entry) for entry in values):
        return None
    return f"cannot be {value!r}", "a folder or a URL, or a list of them"


def _check_location(value: object) -> tuple[str, str] | None:
    if _is_location(value):
        return None
    return f"cannot be {value!r}", "a URL, or a folder on the orchestrator"


def _is_location(value: object) -> bool:
    """Whether it is a URL or a path, which uv does not take for an option."""
    if not isinstance(value, str) or value.startswith("-"):
        return False
    return not (wrong_url(value, *INDEX_SCHEMES) if "://" in value else wrong_path(value))


def _check_url(value: object) -> tuple[str, str] | None:
    if isinstance(value, str) and not wrong_url(value, *INDEX_SCHEMES):
        return None
    return "is not a URL", "such as https://host/simple"


def _check_proxy(value: object) -> tuple[str, str] | None:
    """Check a proxy without quoting it: it may contain a password."""
    hint = "such as http://proxy:3128"
    if not isinstance(value, str):
        return "is not a URL", hint
    problem = wrong_url(value, "http", "https")
    if "port" in problem:
        return problem, hint
    return ("is not the URL of an HTTP proxy", hint) if problem else None


def _check_python(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):  # YAML reads 3.10 as a number, which is 3.1
        return f"cannot be {value!r}", "a version in quotes: '3.12'"
    if not re.fullmatch(r"3\.\d+(\.\d+)?", value):
        return f"cannot be {value!r}", "a version such as '3.12' or '3.12.4'"
    if int(value.split(".")[1]) < OLDEST.minor:
        return f"cannot be {value}", f"flambe needs {OLDEST} or newer"
    return None


KEYWORDS: dict[str, Check] = {
    "extras": _check_extras,
    "index_url": _check_url,
    "find_links": _check_locations,
    "offline": _check_flag,
    "system": _check_flag,
    "proxy": _check_proxy,
    "python": _check_python,
    "python_mirror": _check_location,
}
