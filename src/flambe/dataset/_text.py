"""The text of csv and tsv files: encodings, separators and quotes."""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from flambe.dataset.dataset import DataError
from flambe.errors import did_you_mean

Quoting = Literal["minimal", "none"]

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_USUAL = ("\t", ",", ";", "|")
_ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252", "ascii")
# How files start that hold no text: what they are, and how they are unpacked.
_PACKED = {
    b"\x1f\x8b": ("compressed with gzip", "gunzip -k"),
    b"BZh": ("compressed with bzip2", "bunzip2 -k"),
    b"\xfd7zXZ\0": ("compressed with xz", "unxz -k"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unzstd"),
    b"PK\x03\x04": ("a zip archive (as .xlsx and .npz are)", "unzip"),
    b"PAR1": ("a Parquet file", ""),
}
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Lines:
    """The rows of a file.

    Parameters
    ----------
    path
        The file.
    sep
        What separates columns; None to find out.
    encoding
        Of the text.
    quoting
        Whether quotes around a value are a part of it (``none``) or not (``minimal``). By default
        ``minimal``, with two differences: in tab-separated files a value ends in its line, and
        quotes that don't close there are text; in others, lines that would be rows on their own
        are not joined.
    """

    def __init__(
        self,
        path: str,
        sep: str | None = None,
        encoding: str = "utf-8",
        quoting: Quoting | None = None,
    ) -> None:
        self.path = path
        self.encoding = _codec(path, encoding)
        self.sep = _checked_separator(sep) if sep is not None else self._separator()
        self.quoting = quoting
        self._width = 0  # of the first row

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row with the line that it starts in; empty lines are skipped."""
        try:
            with open(self.path, encoding=self.encoding, newline="") as stream:
                parse = self._by_line if self._one_line else self._minimal
                for line, row in parse(stream):
                    self._width = self._width or len(row)
                    yield line, row
        except UnicodeDecodeError as error:
            line, column = self._undecodable()
            raise DataError(
                f"{self.path}:{line}: column {column}: not {error.encoding}: {error.reason} "
                "(set encoding, such as latin-1 or utf-16)"
            ) from None
        except UnicodeError as error:
            raise DataError(f"{self.path}:1: not {self.encoding}: {error} (set encoding)") from None
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from None

    @property
    def _one_line(self) -> bool:
        return self.quoting == "none" or (self.quoting is None and self.sep == "\t")

    def _by_line(self, stream: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        for number, line in enumerate(stream, start=1):
            text = line.rstrip("\r\n")
            if not text:
                continue
            row = text.split(self.sep)
            if '"' in text and self.quoting is None:
                row = self._unquoted(text, row)
            yield number, row

    def _unquoted(self, text: str, plain: list[str]) -> list[str]:
        """Return the values of a line without their quotes, unless these are a part of the text."""
        try:
            row = next(csv.reader([text], delimiter=self.sep, strict=True))
        except csv.Error:
            return plain
        return plain if self._width and len(row) != self._width == len(plain) else row

    def _minimal(self, stream: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        lines = _Kept(stream)
        reader = csv.reader(lines, delimiter=self.sep, strict=True)
        start = 1
        try:
            for row in reader:
                if len(lines.kept) > 1 and self.quoting is None:
                    self._refuse_joined(start, lines.kept, len(row))
                lines.kept.clear()
                if row:
                    yield start, row
                start = reader.line_num + 1
        except csv.Error as error:
            reason = "a quote is not closed" if "unexpected end" in str(error) else str(error)
            raise DataError(
                f"{self.path}:{start}: column {self._column(lines.kept)}: {reason} "
                "(if quotes are part of the text, set quoting: none)"
            ) from None

    def _refuse_joined(self, start: int, lines: list[str], width: int) -> None:
        """See that lines which a quote joins are not rows of their own.

        Raises
        ------
        DataError
            If they may be.
        """
        if all(line.count(self.sep) + 1 == width for line in lines):
            raise DataError(
                f"{self.path}:{start}: column {self._column(lines)}: a quote joins lines {start} "
                f"to {start + len(lines) - 1} to one row (set quoting: none if quotes are part of "
                "the text, or quoting: minimal if this is right)"
            )

    def _column(self, lines: list[str]) -> int:
        """Return the column, from 1, whose quote is not closed in its line."""
        before, quoted, column = self.sep, False, 1
        for character in lines[0] if lines else "":
            if character == '"' and (quoted or before == self.sep):
                quoted = not quoted
            elif character == self.sep and not quoted:
                column += 1
            before = character
        return column

    def _undecodable(self) -> tuple[int, int]:
        """Return the line, and the byte in it, that cannot be decoded."""
        data = Path(self.path).read_bytes()
        try:
            data.decode(self.encoding)
        except UnicodeDecodeError as error:
            before = data[: error.start]
            return before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        return 1, 1

    def _separator(self) -> str:
        if separator := _SEPARATORS.get(Path(self.path).suffix.lower()):
            return separator
        with open(self.path, encoding=self.encoding, errors="replace") as stream:
            first = stream.readline()
        return max(_USUAL, key=first.count)


class _Kept:
    """Lines, those since the last row kept."""

    def __init__(self, stream: Iterator[str]) -> None:
        self.stream = stream
        self.kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.stream)
        self.kept.append(line)
        return line


def _checked_separator(sep: str) -> str:
    if sep == "\\t":  # as it is written in YAML without quotes
        return "\t"
    if len(sep) != 1 or sep in '"\r\n':
        raise DataError(f"sep is one character, not {sep!r}")
    return sep


def _codec(path: str, encoding: str) -> str:
    """Return the encoding to read a file with.

    Raises
    ------
    DataError
        If there is none of that name, or the file is plainly not text in it.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        hint = did_you_mean(encoding, _ENCODINGS) or f"there are {', '.join(_ENCODINGS)} …"
        raise DataError(f"there is no encoding {encoding!r}: {hint}") from None
    try:
        # What is not a regular file may be read once only.
        start = b""
        if os.path.isfile(path):
            with open(path, "rb") as stream:
                start = stream.read(4096)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    for magic, (kind, command) in _PACKED.items():
        if start.startswith(magic):
            how = f"unpack it:   {command} {path}" if command else "write it as csv"
            raise DataError(f"{path} is {kind}: {how}")
    if name.startswith(("utf-16", "utf-32")):
        return name
    detected = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "")
    if detected or start.count(b"\0") > len(start) / 4:
        raise DataError(
            f"{path}:1: column 1: not {name}: it is {detected or 'utf-16'} (set encoding)"
        )
    # Excel marks UTF-8 files in a way that would become a part of the first name.
    return "utf-8-sig" if name == "utf-8" else name


def other_separator(names: list[str], sep: str) -> str:
    """Return what else may separate the columns, where there is a single one."""
    separator = max(_USUAL, key=names[0].count) if len(names) == 1 else ""
    return separator if separator and separator != sep and separator in names[0] else ""
