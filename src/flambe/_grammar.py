"""What text from a file must look like before it becomes a path, an argument or a line.

Files come from strangers, and programs take more for a command than their users expect: an option
where a name is expected, a second line where there should be one. Each kind of text is checked
once, where the file is read, by one of these; each says what is wrong, or nothing.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

T = TypeVar("T")

# A file name has at most 255 bytes, and names are parts of longer ones.
LONGEST_NAME = 100
LONGEST_PATH = 4096
NAME_HINT = "letters, digits, '-' and '_'"

_NAME = re.compile(r"\w[\w-]*\Z")
_ASCII_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
# useradd(8), and what Active Directory adds: DOMAIN\user, user@domain, machine$.
_USER = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]*\\)?[A-Za-z0-9_][A-Za-z0-9_.@+-]*\$?\Z")
LONGEST_HOST, LONGEST_LABEL = 253, 63  # RFC 1035, 2.3.4
# No '-' first: a name that a program takes for an option.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")
# RFC 4007: the zone of an IPv6 address, as Linux names its interfaces.
_ZONE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")


def wrong_name(name: object) -> str:
    """Return what is wrong with the name of a stage or a resource, which becomes a folder."""
    if not isinstance(name, str) or not _NAME.match(name):
        return f"{name!r} is not a name"
    return _too_long(name, LONGEST_NAME, "name")


def wrong_ascii_name(name: str) -> str:
    """Return what is wrong with a name that other machines see too: of a cluster, a run."""
    if not _ASCII_NAME.match(name):
        return f"{name!r} is not a name{': it starts with a dash' if name[:1] == '-' else ''}"
    return _too_long(name, LONGEST_NAME, "name")


def wrong_path(path: str) -> str:
    """Return what is wrong with a path: no program expects a second line in one."""
    if not path:
        return "a path cannot be empty"
    if not is_one_line(path):
        return f"the path {path!r} contains characters that cannot be printed"
    return _too_long(path, LONGEST_PATH, "path")


def wrong_user(user: str) -> str:
    """Return what is wrong with the name of who logs in: ssh reads it from a generated file."""
    return "" if _USER.match(user) else f"{user!r} is not the name of a user"


def is_host(text: str) -> bool:
    """Whether text is the name of a host, or an IP address without brackets."""
    address, percent, zone = text.partition("%")
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        labels = text.removesuffix(".").split(".")
        fits = len(text) <= LONGEST_HOST and all(len(label) <= LONGEST_LABEL for label in labels)
        return fits and bool(_HOST.match(text))
    return not percent or (version == 6 and bool(_ZONE.match(zone)))


def wrong_url(url: str, *schemes: str) -> str:
    """Return what is wrong with a URL.

    Parameters
    ----------
    url
        The URL. The message does not repeat it: it may hold a password.
    schemes
        Which are expected: ``https``, ``s3``.
    """
    try:
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username or ""
    except ValueError:
        return "is not a URL"
    if parts.scheme not in schemes or not is_one_line(url):
        return f"is not a URL of {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if parts.scheme == "s3":
        return _wrong_bucket(parts.netloc, parts.path)
    if any(letter.isspace() for letter in url):
        return "contains spaces"
    if parts.scheme == "file":
        return "" if parts.path.startswith("/") else "has no path that starts with '/'"
    if not is_host(host):
        return "names no host"
    if user.startswith("-"):
        return "has a user that starts with '-'"
    return "" if _has_port(parts) else "has no port from 1 to 65535"


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _wrong_bucket(bucket: str, key: str) -> str:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    if not _BUCKET.match(bucket):
        return "names no bucket"
    if {".", ".."} & set(key.split("/")):
        return "cannot contain '.' or '..'"
    return ""


def as_list(values: Iterable[T], expectation: str, example: str = "") -> list[T]:
    """Return a list of what was passed, which may not be text: it would count letter by letter.

    Parameters
    ----------
    values
        What was passed where several texts are expected.
    expectation
        What takes them: ``"create_dirs() takes a list of folders"``.
    example
        What to write instead; by default the text in a list.

    Raises
    ------
    TypeError
        If it is a text, or one path.
    """
    if isinstance(values, os.PathLike):
        raise TypeError(f"{expectation}, not one path: write {example or [os.fspath(values)]}")
    if isinstance(values, str | bytes):
        raise TypeError(f"{expectation}, not one text: write {example or [values]}")
    return list(values)


def as_argv(command: object) -> str:
    """Return the argv of a command that was written as one text, as it would be typed."""
    if not isinstance(command, str):
        return ""
    try:
        argv = shlex.split(command)
    except ValueError:  # a quote without its second one
        argv = []
    in_shell = not argv or set("|&;<>()$`*?~#") & set(command)
    return str(["bash", "-c", command] if in_shell else argv)


def is_one_line(text: str) -> bool:
    """Whether text is one line that can be printed: no control characters, no halves of others."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _too_long(text: str, most: int, kind: str) -> str:
    return f"the {kind} {text[:20]!r}… is too long" if len(text.encode()) > most else ""
