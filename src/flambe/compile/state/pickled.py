"""Attributes that need pickle: files of their own, read only where they are trusted.

A pickle runs what it names when it is read. So it is a form of state that a component asks for
(``register_attrs("clf", pickle=True)``), kept apart from the rest: beside ``state.pt`` there is
``clf.pickle``, and ``clf.pickle.mac``, a code (HMAC-SHA256) that takes the key of the user to
compute. A run reads what was written with the key of its user, and nothing else: a folder that
someone else made has no such code. ``flambe.load(path, trust=True)`` reads any.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pickle
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from flambe._files import read_regular, write_private_once
from flambe.compile.state.codec import MARK
from flambe.compile.state.file_writer import FileWriter
from flambe.errors import StateError, UnsavableError
from flambe.logging.console import home_folder

_KEY_FILE = "pickle.key"
_KIND = "pickle"
#: After the name of a pickle: the file of the code that shows who wrote it.
CODE_SUFFIX = ".mac"


@dataclass(frozen=True)
class Trust:
    """Whose pickles are read.

    Attributes
    ----------
    everybody
        Whether any are.
    key
        Those that were written with this key are.
    """

    everybody: bool = False
    key: bytes = field(default=b"", repr=False)


NOBODY = Trust()


def user_key() -> bytes:
    """Return the key of this user on this machine, made at first use.

    If flambe's own folder cannot be written, it is a new one, for this run only.
    """
    try:
        path = home_folder() / _KEY_FILE
        if not path.exists():
            write_private_once(path, secrets.token_bytes(32))
        key = read_regular(path)
        return key if len(key) == 32 else secrets.token_bytes(32)
    except OSError:
        return secrets.token_bytes(32)


def _code(key: bytes, name: str, digest: str) -> str:
    return hmac.new(key, f"{name}\0{digest}".encode(), hashlib.sha256).hexdigest()


def write(
    folder: FileWriter, name: str, value: object, where: str, key: bytes
) -> dict[str, object]:
    """Pickle an attribute into a file of its own; return what the state says of it.

    Raises
    ------
    UnsavableError
        If it cannot be pickled.
    """
    try:
        with folder.open(f"{name}.pickle") as stream:
            pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    except OSError:
        raise
    except Exception as error:  # pickling calls what objects define
        kind = type(value)
        raise UnsavableError(
            f"cannot save {where}: its {name!r} is a {kind.__module__}.{kind.__qualname__}, which "
            f"cannot be pickled: {error}\n"
            "  register what it is made from, and make it again in _load_state;\n"
            f'  or, if nothing depends on it:  _transient = ("{name}",)   in the class'
        ) from None
    entry = folder.entry(f"{name}.pickle")
    if key:
        folder.write(f"{name}.pickle{CODE_SUFFIX}", _code(key, name, entry.hexadecimal))
    return {MARK: _KIND, "sha256": entry.hexadecimal, "size": entry.size}


class PickleEntry(TypedDict):
    """What a state says of an attribute that is in a file of its own, besides its mark."""

    sha256: str
    size: int


def pickle_entry(written: object) -> PickleEntry | None:
    """Return what a state says of an attribute that was pickled; None if it was not.

    Raises
    ------
    ValueError
        If it does not say enough.
    """
    if not isinstance(written, dict) or written.get(MARK) != _KIND:
        return None
    digest, size = written.get("sha256"), written.get("size")
    if not isinstance(digest, str) or not isinstance(size, int):
        raise ValueError("it does not say which pickle belongs to it")
    return {"sha256": digest, "size": size}


def read(folder: str, name: str, entry: PickleEntry, where: str, trust: Trust) -> object:
    """Read an attribute back, if its file is trusted.

    Raises
    ------
    StateError
        If it is not, or not the file that was written.
    """
    path = os.path.join(folder, f"{name}.pickle")
    if not name.isidentifier():
        raise StateError(f"cannot read the state in {folder}: {name[:80]!r} is not an attribute")
    digest = entry["sha256"]
    if not trust.everybody and not _is_ours(path, name, digest, trust.key):
        raise StateError(
            f"{where}: {name!r} is a pickle, which can run code as you, and is not read\n  "
            + (_IN_RUN.format(path=os.path.abspath(folder)) if trust.key else _LOADED)
        )
    try:
        data = read_regular(path, entry["size"] + 1)
    except OSError as error:
        raise StateError(f"{where}: {name!r} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise StateError(f"{where}: {name!r} is damaged: {path} is not what was written")
    try:
        # Signed with this user's key, or trusted by the caller: nothing else comes so far.
        return pickle.loads(data)
    except Exception as error:  # whatever it runs
        text = f"{type(error).__name__}: {error}"
        raise StateError(f"{where}: {name!r} cannot be unpickled: {text}") from error


_LOADED = "if you trust who wrote it:   flambe.load(path, trust=True)"
_IN_RUN = (
    "no run of yours on this machine wrote it (its code was not made with your key, "
    "~/.flambe/pickle.key)\n"
    '  if you trust who did:   python -c "import flambe; flambe.trust({path!r})"   '
    "and run it again with --resume"
)


def _is_ours(path: str, name: str, digest: str, key: bytes) -> bool:
    if not key:
        return False
    try:
        code = read_regular(f"{path}{CODE_SUFFIX}", 200).decode("ascii").strip()
    except (OSError, ValueError):
        return False
    return hmac.compare_digest(code, _code(key, name, digest))


def trust(path: str | os.PathLike[str]) -> int:
    """Let your runs on this machine read the pickles in a folder, no matter who wrote them.

    Call it for a folder of results that you brought here from another machine of yours, and want
    to resume. The author of a pickle can run code as you when it is read.

    Parameters
    ----------
    path
        A saved component, or a folder with any number of them, such as the output of a run.

    Returns
    -------
    int
        How many pickles are trusted now.

    Raises
    ------
    StateError
        If it is not a folder.
    """
    if not os.path.isdir(path):
        raise StateError(f"{path} is not a folder")
    count, key = 0, user_key()
    for folder, _, files in os.walk(path):
        for file in files:
            name = file.removesuffix(".pickle")
            if name != file and name.isidentifier():
                digest = hashlib.sha256(read_regular(os.path.join(folder, file))).hexdigest()
                code_file = Path(folder, f"{file}{CODE_SUFFIX}")
                code_file.write_text(_code(key, name, digest), encoding="ascii")
                count += 1
    return count
