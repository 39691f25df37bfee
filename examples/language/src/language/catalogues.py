"""Texts from the translation catalogues of an installed package."""

from __future__ import annotations

import gettext
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path

from flambe.dataset import DataError, TabularDataset
from flambe.dataset.tabular import Transform

# Of ten messages, so many are for validation and for the test.
_VAL, _TEST = 1, 2
# What is no language: "%(count)d", "{name}", "<br>", "&hellip;".
_MARKS = re.compile(r"%\(\w+\)\w|%\w|\{[^{}]*\}|<[^<>]*>|&\w+;")


class Catalogues(TabularDataset):
    """Messages of a program, each in several languages: columns ``text`` and ``label``.

    All translations of a message are in the same split, so that the test data has no text that the
    model has seen in another language.

    Parameters
    ----------
    languages
        The names of the locales; they are the labels.
    transform
        As in :class:`flambe.dataset.TabularDataset`.
    package
        An installed package that has catalogues (``locale/<language>/LC_MESSAGES/*.mo``).
    min_length
        Shorter messages are left out: the word for "file" tells no language.
    """

    def __init__(
        self,
        languages: Sequence[str],
        transform: Transform,
        *,
        package: str = "django",
        min_length: int = 30,
    ) -> None:
        folder = _folder(package)
        splits: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
        for language in languages:
            messages = _messages(folder, language)
            if not messages:
                raise DataError(f"{package} has no translations to {language!r}")
            for message, text in messages.items():
                if len(text) >= min_length and text != message:
                    splits[_split(message)].append((text, language))
        super().__init__(**splits, named_columns=["text", "label"], transform=transform)


def _folder(package: str) -> Path:
    """Find a package without importing it."""
    found = util.find_spec(package)
    if found is None or found.origin is None:
        raise DataError(f"{package} is not installed: pip install {package}")
    return Path(found.origin).parent


def _messages(folder: Path, language: str) -> Mapping[str, str]:
    files = sorted(folder.rglob(f"locale/{language}/LC_MESSAGES/*.mo"))
    return {message: text for file in files for message, text in _read(file)}


def _read(file: Path) -> Iterator[tuple[str, str]]:
    with file.open("rb") as stream:
        catalogue = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
    for message, text in catalogue.items():
        # Messages with a plural have a tuple for a key; the empty one describes the file.
        if isinstance(message, str) and message:
            yield message, " ".join(_MARKS.sub(" ", str(text)).split())


def _split(message: str) -> str:
    """Choose by the message alone: the same on every machine, in every language."""
    number = hashlib.sha256(message.encode()).digest()[0] % 10
    return "val" if number < _VAL else "test" if number < _VAL + _TEST else "train"
