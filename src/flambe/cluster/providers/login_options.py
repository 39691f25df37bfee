"""``key`` and ``username``, the keywords of clusters whose hosts accept the user's own key."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from flambe._grammar import wrong_path, wrong_user
from flambe.cluster.options import Finding

PATH_HINT = "the path of a private key"


def key_path(keyword: str, folder: Path) -> Path:
    """Return the path of the key that a file in a folder names."""
    return folder / os.path.expanduser(keyword)


def findings(values: Mapping[str, object], folder: Path) -> Iterator[Finding]:
    """Yield what is wrong with the keywords of a file in a folder."""
    user, key = values.get("username"), values.get("key")
    if isinstance(user, str) and (problem := wrong_user(user)):
        yield ("username",), f"username: {problem}", "letters, digits, '-', '_', '.' and '@'"
    if isinstance(key, str):
        for message, hint in _key_problems(key_path(key, folder)):
            yield ("key",), message, hint


def _key_problems(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a private key, and what helps."""
    if problem := wrong_path(str(path)):
        yield f"key: {problem}", PATH_HINT
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield f"cannot read the key {path}: {error.strerror}", PATH_HINT
        return
    if not stat.S_ISREG(mode):
        yield f"the key {path} is not a file", PATH_HINT
    elif _is_public_key(path):
        is_named_so = path.suffix == ".pub"
        hint = str(path).removesuffix(".pub") if is_named_so else "use its private key"
        yield f"{path} is a public key", hint
    elif mode & 0o077:
        yield f"others can read the private key {path}", f"chmod 600 {shlex.quote(str(path))}"


def _is_public_key(path: Path) -> bool:
    with contextlib.suppress(OSError):
        start = path.read_bytes()[:200]
        return start.startswith((b"ssh-", b"ecdsa-", b"sk-", b"---- BEGIN SSH2 PUBLIC"))
    return False
