"""What csv and tsv files may look like, and what is told of those that are not right."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambe.dataset import DataError, TabularDataset
from flambe.field import Field, FieldError, LabelField, NumberField
from tests.experiment.lab import Lab, flambe, flambe_here


def rows(path: Path, data: str | bytes, **options: Any) -> list[Any]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(TabularDataset.from_path(str(path), **options).train)


def refused(path: Path, data: str | bytes, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        rows(path, data, **options)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    return str(error.value).replace(str(path), path.name)


# -- quotes -----------------------------------------------------------------------------------

LONE = 'text,label\n"he said,x\nshe said",y\nfine,x\n'


def test_a_lone_quote_in_a_tsv_file_is_text(tmp_path: Path) -> None:
    path = tmp_path / "q.tsv"
    text = LONE.replace(",", "\t")
    assert rows(path, text) == [('"he said', "x"), ('she said"', "y"), ("fine", "x")]
    assert rows(path, text, quoting="none") == rows(path, text)
    assert rows(path, text, quoting="minimal") == [("he said\tx\nshe said", "y"), ("fine", "x")]


def test_quotes_around_a_value_of_a_tsv_file_are_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "q.tsv"
    text = '"text"\tlabel\n"a ""b"" c"\tx\n"tab\there"\ty\n"one\ttwo"\n5" wide\t"\n'
    expected = [('a "b" c', "x"), ("tab\there", "y"), ('"one', 'two"'), ('5" wide', '"')]
    assert rows(path, text) == expected
    plain = text.replace("tab\t", "tab ")
    assert rows(path, plain, quoting="none")[0] == ('"a ""b"" c"', "x")
    message = refused(path, 'text\tlabel\n"two\nlines"\tx\n')
    assert message.startswith("q.tsv:2: column 2: 1 columns, not 2")


def test_a_quote_that_joins_rows_of_a_csv_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    message = refused(path, f"text,label\nfirst,z\n{LONE.partition(chr(10))[2]}")
    assert message == (
        "q.csv:3: column 1: a quote joins lines 3 to 4 to one row (set quoting: none if quotes are "
        "part of the text, or quoting: minimal if this is right)"
    )
    assert rows(path, LONE, quoting="none")[0] == ('"he said', "x")
    assert rows(path, LONE, quoting="minimal")[0] == ("he said,x\nshe said", "y")
    # Lines that would be no rows are joined as ever.
    text = 'text,label\n"Dear all,\n\nsee you, bye",x\n"two\nlines",y\n'
    assert rows(path, text) == [("Dear all,\n\nsee you, bye", "x"), ("two\nlines", "y")]


def test_a_quote_that_is_not_closed_has_its_column(tmp_path: Path) -> None:
    message = refused(tmp_path / "q.csv", 'a,b,c\n1,"x, y","z\n4,5,6\n')
    assert message.startswith("q.csv:2: column 3: a quote is not closed (if quotes are part of")


# -- separators and encodings -------------------------------------------------------------------


def test_separators(tmp_path: Path) -> None:
    path, text = tmp_path / "s.csv", "a;b\n1;2\n"
    assert rows(path, text, sep=";") == [("1", "2")]
    assert rows(path, text.replace(";", "\t"), sep="\\t") == [("1", "2")]
    assert "sep is one character, not '::'" in refused(path, text, sep="::")
    assert "sep is one character, not ''" in refused(path, text, sep="")
    message = refused(path, text, transform={"a": NumberField()})
    assert message.endswith("no column 'a': the columns seem to be separated by ';' (set sep)")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF_8", "utf8", "utf-8-sig"])
def test_a_mark_at_the_start_is_no_part_of_a_name(tmp_path: Path, encoding: str) -> None:
    data = "\ufeffx,é\n1,ü\n".encode()
    path = tmp_path / "e.csv"
    path.write_bytes(data)
    assert TabularDataset.from_path(str(path), encoding=encoding).train.names == ["x", "é"]


def test_encodings(tmp_path: Path) -> None:
    path, text = tmp_path / "e.csv", "x,label\n1,é\n"
    assert rows(path, text.encode("latin-1"), encoding="latin-1") == [("1", "é")]
    assert rows(path, text.encode("utf-16"), encoding="utf-16") == [("1", "é")]
    message = refused(path, text.encode("latin-1"))
    assert message.startswith("e.csv:2: column 3: not utf-8: invalid")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        message = refused(path, text.encode(encoding))
        assert message == "e.csv:1: column 1: not utf-8: it is utf-16 (set encoding)"
    assert "e.csv:1: " in refused(path, "a,b,c\n1,2,3\n", encoding="utf-16")
    assert refused(path, text, encoding="utf-88").startswith("there is no encoding 'utf-88': did")


@pytest.mark.parametrize(
    ("pack", "command"),
    [(gzip.compress, "gunzip -k"), (bz2.compress, "bunzip2 -k"), (lzma.compress, "unxz -k")],
)
def test_compressed_files(tmp_path: Path, pack: Callable[[bytes], bytes], command: str) -> None:
    message = refused(tmp_path / "p.csv.gz", pack(b"x,label\n1,a\n"))
    assert message.startswith("p.csv.gz is compressed with ")
    assert f"unpack it:   {command} p.csv.gz" in message


# -- numbers and labels ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1e39", "-1e39", "1e400", "3.40282357e38"])
def test_numbers_that_are_infinite_in_float32(tmp_path: Path, value: str) -> None:
    numbers = {"x": {"field": NumberField(), "columns": ["y", "x"]}, "label": LabelField()}
    message = refused(tmp_path / "n.csv", f"x,y,label\n1,2,a\n{value},1,a\n", transform=numbers)
    assert message.startswith(f"n.csv:3: column 'x': '{value}' is ")


def test_the_largest_numbers(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    found = rows(path, "x\n3.4028235e38\n-3.40282356779733e38\n", transform={"x": NumberField()})
    assert [float(row[0]) for row in found] == [3.4028234663852886e38, -3.4028234663852886e38]
    whole = {"x": NumberField(integers=True)}
    assert int(rows(path, f"x\n{2**63 - 1}\n", transform=whole)[0][0]) == 2**63 - 1
    for value in (2**63, -(2**63) - 1, 10**400):
        message = refused(path, f"x\n1\n{value}\n", transform=whole)
        assert message.startswith("n.csv:3: column 'x': ")
        assert "is too large for int64" in message
    with pytest.raises(DataError, match=r"row 0, column 'x': 1.5 is not a whole number"):
        TabularDataset([[1.5]], named_columns=["x"], transform=whole)
    with pytest.raises(FieldError, match="is too large for float32"):
        Field().process([1.0, 1e39])
    assert torch.isinf(Field().process(float("inf")))


def test_a_label_that_the_split_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rare.csv"
    lines = [f"{n},a" for n in range(20)] + [f"{20 + n},rare{n}" for n in range(4)]
    path.write_text("x,label\n" + "\n".join(lines) + "\n")
    transform = {"x": NumberField(), "label": LabelField()}
    with pytest.raises(
        DataError, match=r"(?s)rare\.csv:23: .*the split left it out of the training"
    ):
        TabularDataset.autogen(str(path), transform=transform)
    every = LabelField(labels=["a", *(f"rare{n}" for n in range(4))])
    assert len(TabularDataset.autogen(str(path), transform={**transform, "label": every}).val) == 5


@pytest.mark.integration
def test_a_file_that_is_not_right_through_the_command(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.root / "data.csv").write_text(LONE)
    lab.write(
        """
        data: !TabularDataset.from_path {train_path: !@ file}
        run: !pieces.Fixed {other: !@ data}
        """,
        more="resources: {file: data.csv}",
    )
    result = flambe(lab.config)
    assert result.returncode == 1
    assert "data.csv:2: column 1: a quote joins lines 2 to 3 to one row" in result.stderr
    lab.write("data: !TabularDataset.from_path {train_path: a, quoting: nun}")
    result = flambe_here("validate", lab.config)
    assert result.returncode == 2
    assert "config.yaml:9:60: 'quoting' of !TabularDataset.from_path cannot be" in result.stderr
