"""Where extensions come from: a folder, a Git repository or a requirement, as a file writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flambe._grammar import is_host, is_one_line, wrong_url, wrong_user

EXPECTED = "expected a folder, a Git URL or a pip requirement"

_GIT = re.compile(
    r"(?P<url>(?:https?|ssh|git|file)://.+?|[^\s/:@]+@[^\s/:@]+:(?!//).+?)"
    r"(?:/tree/(?P<rest>.+?))?/?\Z"
)
_SCP = re.compile(r"(?P<user>[^@]+)@(?P<host>[^:]+):(?P<path>[\w.~/+@%-]+)\Z")
# git-check-ref-format(1): what neither a branch nor a tag has in it, and no folder needs.
_NOT_IN_REF = re.compile(r"\.\.|@\{|[~^:?*\[\\]|//|(?:^|/)-")


@dataclass(frozen=True)
class GitSource:
    """A Git repository: its URL, and what stands behind ``/tree/`` (branch and sub-folder)."""

    url: str
    rest: str = ""


def git_source(origin: str) -> GitSource | None:
    """Return the Git repository that an extension comes from, or None."""
    match = _GIT.match(origin)
    return GitSource(match["url"], match["rest"] or "") if match else None


def requirement(origin: str) -> Requirement | None:
    """Return the requirement that an extension is installed by, or None."""
    try:
        return Requirement(origin)
    except InvalidRequirement:
        return None


def wrong_origin(origin: str) -> str:
    """Return what is wrong with where an extension comes from; nothing if it can be installed.

    git and pip are given it as an argument, and would take some for an option.
    """
    if not is_one_line(origin):
        return "it contains characters that cannot be printed"
    if (source := git_source(origin)) is not None:
        return _wrong_git(source.url) or _wrong_ref(source.rest)
    if origin.startswith("-"):
        return f"{origin!r} would be read as an option by pip"
    required = requirement(origin)
    return _wrong_requirement(required) if required is not None else ""


def _wrong_git(url: str) -> str:
    if "://" in url:
        reason = wrong_url(url, "https", "http", "ssh", "git", "file")
        return f"the Git URL {reason}" if reason else ""
    match = _SCP.match(url)
    if match is None or match["path"].startswith("-"):
        return f"{url!r} is not a Git URL"
    if wrong_user(match["user"]) or not is_host(match["host"]):
        return f"{url!r} is not a Git URL: its host or user is not one"
    return ""


def _wrong_ref(rest: str) -> str:
    return f"{rest!r} is not a branch and a folder" if _NOT_IN_REF.search(rest) else ""


def _wrong_requirement(required: Requirement) -> str:
    if canonicalize_name(required.name) == "flambe":
        return "it is flambe itself, whose name on PyPI belongs to another project"
    if required.url is None:
        return ""
    if not required.url.startswith("git+"):
        reason = wrong_url(required.url, "https", "http", "file")
        return f"the URL {reason}" if reason else ""
    url, _, _ = required.url.removeprefix("git+").partition("#")
    head, _, last = url.rpartition("/")
    name, _, ref = last.partition("@")
    return _wrong_git(f"{head}/{name}") or _wrong_ref(ref)
