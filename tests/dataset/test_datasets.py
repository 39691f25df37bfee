from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from flambe.dataset import BaseDataset, DataError, SklearnDataset, Table, TabularDataset
from flambe.field import LabelField, NumberField, Ragged, TextField

ROWS = 'text,label\ngood film,pos\nbad film,neg\n"two\nlines",pos\n'


def _file(folder: Path, text: str, name: str = "data.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def test_digits_are_split_by_class() -> None:
    dataset = SklearnDataset("digits", seed=3)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (1077, 360, 360)
    assert (dataset.n_features, dataset.n_classes) == (64, 10)
    assert isinstance(dataset.train, Table)
    assert isinstance(dataset.test, Table)
    features, labels = dataset.train.columns
    assert isinstance(features, torch.Tensor)
    assert isinstance(labels, torch.Tensor)
    assert features.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert features.mean(0).abs().max() < 1e-5
    counts = torch.bincount(dataset.test.columns[1])  # type: ignore[arg-type]
    assert counts.min() >= 34
    assert counts.max() <= 38
    rows = {tuple(row[0].tolist()) for row in dataset.train} & {
        tuple(row[0].tolist()) for row in dataset.test
    }
    assert not rows
    again = SklearnDataset("digits", seed=3)
    assert torch.equal(again.train.columns[0], features)  # type: ignore[attr-defined]
    other = SklearnDataset("digits", seed=4)
    assert not torch.equal(other.train.columns[0], features)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "classes"), [("iris", 3), ("wine", 3), ("breast_cancer", 2)])
def test_other_sets(name: str, classes: int) -> None:
    dataset = SklearnDataset(name, scale=False)  # type: ignore[arg-type]
    assert dataset.n_classes == classes
    assert len(dataset.class_names) == classes


def test_split_of_a_wrong_name() -> None:
    dataset = SklearnDataset("iris")
    with pytest.raises(DataError, match="did you mean 'train'"):
        dataset.split("trian")
    with pytest.raises(DataError, match="BaseDataset has no val data"):
        BaseDataset().split("val")


def test_csv_with_fields(tmp_path: Path) -> None:
    path = _file(tmp_path, "\ufeff" + ROWS)
    tsv = _file(tmp_path, "text\tlabel\nfilm unknown\tneg\n", "val.tsv")
    dataset = TabularDataset.from_path(
        path, tsv, transform={"text": TextField(), "label": LabelField()}
    )
    text, label = dataset.train.columns
    assert isinstance(text, Ragged)
    assert [len(text[row]) for row in range(3)] == [2, 2, 2]
    assert label.tolist() == [1, 0, 1]
    tokens, target = dataset.val[0]
    assert dataset.transform is not None
    field = dataset.transform["text"]
    assert isinstance(field, TextField)
    assert field.text(tokens) == ["film", "<unk>"]
    assert int(target) == 0
    assert len(dataset.test) == 0


def test_without_a_transform_rows_stay(tmp_path: Path) -> None:
    dataset = TabularDataset.from_path(_file(tmp_path, ROWS))
    assert list(dataset.train[:2]) == [("good film", "pos"), ("bad film", "neg")]


def test_columns_by_name_number_and_position(tmp_path: Path) -> None:
    path = _file(tmp_path, "1;2;a\n3;4;b\n", "data.txt")
    numbers = {"field": NumberField(), "columns": [0, 1]}
    label = {"field": LabelField(), "columns": -1}
    dataset = TabularDataset.from_path(
        path, header=False, transform={"numbers": numbers, "label": label}
    )
    assert dataset.train[1][0].tolist() == [3, 4]
    assert dataset.train.names == ["numbers", "label"]
    named = TabularDataset.from_path(
        path, header=False, columns=["a", "b", "c"],
        transform={"both": {"field": TextField(), "columns": ["a", "b"]}, "c": LabelField()},
    )  # fmt: skip
    assert named.train.names == ["both_0", "both_1", "c"]
    placed = TabularDataset([["x", "y"]], transform={"text": TextField(), "label": LabelField()})
    assert len(placed.train[0]) == 2


def test_columns_are_chosen_by_the_names_in_the_header(tmp_path: Path) -> None:
    train = _file(tmp_path, "id,text,label\n1,good film,pos\n2,bad film,neg\n", "train.csv")
    other = _file(tmp_path, "label,id,text\nneg,3,dull\n", "other.csv")
    chosen = TabularDataset.from_path(train, other, columns=["label", "text"])
    assert chosen.train.names == ["label", "text"]
    assert list(chosen.train) == [("pos", "good film"), ("neg", "bad film")]
    assert list(chosen.val) == [("neg", "dull")]
    # Fields take columns by their names, or those that are left by their numbers.
    number = {"number": {"field": LabelField(), "columns": 0}, "text": TextField()}
    fields = TabularDataset.from_path(train, columns=["label", "text"], transform=number)
    assert fields.transform is not None
    assert fields.transform["number"]["field"].vocabulary == ["neg", "pos"]
    split = TabularDataset.autogen(train, columns=["text"], val_ratio=0, test_ratio=0.5)
    assert sorted([*split.train, *split.test]) == [("bad film",), ("good film",)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["text", "lable"], "train.csv: columns: no column 'lable': did you mean 'label'?\n"),
        (["x", "y"], "train.csv: columns: no column 'x': there are id, text, label\n"),
        (["text", "text"], "train.csv: columns: 'text' stands there twice"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, columns: list[str], message: str) -> None:
    path = _file(tmp_path, "id,text,label\n1,good film,pos\n", "train.csv")
    with pytest.raises(DataError) as raised:
        TabularDataset.from_path(path, columns=columns)
    assert message in str(raised.value)
    if "twice" not in message:
        instead = (
            f"transform gives others:   {columns[-2] if 'x' in columns else 'lable'}: {{field: …"
        )
        assert instead in str(raised.value)
    with pytest.raises(TypeError, match="columns takes a list of names"):
        TabularDataset.from_path(path, columns="text")
    with pytest.raises(TypeError, match="named_columns takes a list of names"):
        TabularDataset([["a"]], named_columns="text")


def test_without_a_header_columns_name_all_of_them(tmp_path: Path) -> None:
    path = _file(tmp_path, "1,good\n2,bad\n", "train.csv")
    named = TabularDataset.from_path(path, header=False, columns=["id", "text"])
    assert named.train.names == ["id", "text"]
    with pytest.raises(DataError, match=r"train\.csv:1: column 2: 2 columns, not 1"):
        TabularDataset.from_path(path, header=False, columns=["id"])


def test_autogen_splits_all_rows_once(tmp_path: Path) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    values = zip(iris.data, iris.target, strict=True)
    lines = [",".join(map(str, [*row, label])) for row, label in values]
    path = _file(tmp_path, "a,b,c,d,kind\n" + "\n".join(lines) + "\n")
    dataset = TabularDataset.autogen(path, val_ratio=0.1, test_ratio=0.2, seed=1)
    sizes = [len(dataset.train), len(dataset.val), len(dataset.test)]
    assert sizes == [105, 15, 30]
    every = [",".join(row) for split in (dataset.train, dataset.val, dataset.test) for row in split]
    assert sorted(every) == sorted(lines)
    again = TabularDataset.autogen(path, val_ratio=0.1, test_ratio=0.2, seed=1)
    assert list(again.test) == list(dataset.test)
    given = TabularDataset.autogen(path, path, val_ratio=0.1)
    assert [len(given.train), len(given.val), len(given.test)] == [135, 15, 150]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "data.csv:3: column 2: 1 columns, not 2"),
        ("a,b\n1,2\n\n3,4,5\n", "data.csv:4: column 3: 3 columns, not 2"),
        ("a,a\n1,2\n", "data.csv:1: column 2: 'a' stands there twice"),
        ('a,b\n1,"2\n', "data.csv:2: column 2: a quote is not closed"),
        ("", "data.csv is empty"),
        ("a,b\n", "data.csv has no rows"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        TabularDataset.from_path(_file(tmp_path, text))
    assert message in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_undecodable_file_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a,b\n1,2\n3,\xff\n")
    with pytest.raises(DataError, match=r"data\.csv:3: column 3: not utf-?8"):
        TabularDataset.from_path(str(path))
    with pytest.raises(DataError, match=r"cannot read .*none\.csv: No such file"):
        TabularDataset.from_path(str(tmp_path / "none.csv"))


def test_bad_values_name_line_and_column(tmp_path: Path) -> None:
    train = _file(tmp_path, ROWS)
    val = _file(tmp_path, 'text,label\n"a\nb",pos\nb,new\n', "val.csv")
    with pytest.raises(DataError, match=r"val\.csv:4: column 'label': unknown label 'new'"):
        TabularDataset.from_path(train, val, transform={"label": LabelField()})
    numbers = _file(tmp_path, "a,b\n1,2\n3,x\n", "numbers.csv")
    both = {"x": {"field": NumberField(scale=True), "columns": ["a", "b"]}}
    with pytest.raises(DataError, match=r"numbers\.csv:3: column 'b': 'x' is not a number"):
        TabularDataset.from_path(numbers, transform=both)


def test_bad_columns(tmp_path: Path) -> None:
    path = _file(tmp_path, ROWS)
    with pytest.raises(DataError, match="no column 'lable': did you mean 'label'"):
        TabularDataset.from_path(path, transform={"lable": LabelField()})
    with pytest.raises(DataError, match=r"expected a field, or \{field"):
        TabularDataset.from_path(path, transform={"label": {"fields": LabelField()}})
    other = _file(tmp_path, "text,kind\na,b\n", "other.csv")
    with pytest.raises(DataError, match=r"other\.csv: the columns are"):
        TabularDataset.from_path(path, other)
    with pytest.raises(DataError, match="row 1 of train has 1 columns, not 2"):
        TabularDataset([["a", "b"], ["c"]])


def test_table() -> None:
    table = Table({"a": torch.arange(3), "b": ["x", "y", "z"]})
    assert table[-1] == (torch.tensor(2), "z")
    assert [row[1] for row in table] == ["x", "y", "z"]
    with pytest.raises(IndexError):
        table[3]
    with pytest.raises(ValueError, match="different lengths"):
        Table({"a": torch.arange(3), "b": ["x"]})
