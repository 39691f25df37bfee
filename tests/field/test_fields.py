from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flambe.field import CharTokenizer, FieldError, LabelField, NumberField, Ragged, TextField
from tests.learn.helpers import through_file


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=9), st.data())
def test_ragged_pads_like_torch(rows: list[list[int]], data: st.DataObject) -> None:
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    ragged = Ragged.of(tensors)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    padded = ragged.pad(torch.tensor(chosen), -1)
    expected = torch.nn.utils.rnn.pad_sequence(
        [tensors[index] for index in chosen], batch_first=True, padding_value=-1
    )
    assert torch.equal(padded, expected)
    assert [ragged[index].tolist() for index in range(len(ragged))] == rows


def test_ragged_refuses_wrong_lengths() -> None:
    with pytest.raises(ValueError, match="add up to 3, not 4"):
        Ragged(torch.zeros(4), torch.tensor([1, 2]))


def test_labels() -> None:
    field = LabelField()
    field.setup(["no", "yes", "no", "maybe"], ["other"])
    assert field.vocabulary == ["maybe", "no", "yes"]
    assert field.vocab_size == 3
    assert field.process_column(["yes", "maybe"]).tolist() == [2, 0]
    assert int(field.process("no")) == 1
    assert field.label_count.tolist() == [1, 2, 1]
    assert field.label_freq.tolist() == [0.25, 0.5, 0.25]
    assert field.label_inv_freq.tolist() == [4, 2, 4]
    with pytest.raises(FieldError) as error:
        field.process_column(["no", "yess"])
    assert "unknown label 'yess': did you mean 'yes'?" in str(error.value)
    assert "maybe, no, yes" in str(error.value)
    assert error.value.row == 1


def test_one_hot_and_several_labels() -> None:
    field = LabelField(one_hot=True, labels=["b", "a"])
    field.setup(["a", "a"])
    assert field.process_column(["a", "b"]).tolist() == [[0, 1], [1, 0]]
    assert field.process("a").tolist() == [0, 1]
    assert field.label_count.tolist() == [0, 2]
    several = LabelField(multilabel_sep="|")
    several.setup(["x|y", "z", ""])
    assert several.process_column(["y|z", "", "x"]).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_text_vocabulary() -> None:
    field = TextField(lowercase=True, min_freq=2, max_size=2)
    field.setup(["The cat, the dog", "a cat and a dog"], ["unseen unseen"])
    # By frequency, then by spelling; two are kept.
    assert field.vocabulary == ["<pad>", "<unk>", "a", "cat"]
    assert field.process("A cat!").tolist() == [2, 3, 1]
    assert field.process("").tolist() == [1]
    assert field.text(torch.tensor([2, 3, 0, 0])) == ["a", "cat"]
    with pytest.raises(FieldError, match="3 is not text"):
        field.process_column(["a", 3])


def test_text_ends_and_lengths() -> None:
    field = TextField("char", bos_token="<s>", eos_token="</s>", max_length=4, unk_token=None)
    field.setup(["abc"])
    assert field.specials == ["<pad>", "<s>", "</s>"]
    column = field.process_column(["abc", "a?c", "x"])
    assert [field.text(column[row]) for row in range(3)] == [
        ["<s>", "a", "b", "</s>"], ["<s>", "a", "c", "</s>"], ["<s>", "</s>"],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="leaves no room"):
        TextField(bos_token="<s>", max_length=1)


def test_text_of_all_splits() -> None:
    field = TextField(all_splits=True)
    field.setup(["a"], ["b"])
    assert field.vocabulary[2:] == ["a", "b"]


@given(st.text(max_size=20), st.integers(1, 4))
def test_char_ngrams(text: str, n: int) -> None:
    tokens = CharTokenizer(n).tokenize(text)
    if len(text) >= n:
        assert tokens[0] + "".join(token[-1] for token in tokens[1:]) == text
        assert all(len(token) == n for token in tokens)
    else:
        assert tokens == ([text] if text else [])


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8))
def test_columns_equal_rows(texts: list[str]) -> None:
    field = TextField("char", min_freq=2, max_length=5)
    field.setup(texts)
    column = field.process_column(texts)
    assert [column[row].tolist() for row in range(len(texts))] == [
        field.process(text).tolist() for text in texts
    ]


@pytest.mark.parametrize("first", ["", "2 3\n"])
def test_pretrained_vectors(tmp_path: Path, first: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(first + "cat 1 2 3\ndog 4 5 6\n", encoding="utf-8")
    field = TextField(embeddings=str(file))
    field.setup(["cat bird"])
    matrix = field.embedding_matrix
    assert matrix is not None
    assert matrix.shape == (4, 3)
    assert matrix[field.vocabulary.index("cat")].tolist() == [1, 2, 3]
    assert matrix[0].tolist() == [0, 0, 0]

    again = TextField(embeddings=str(file))
    again.load_state(through_file(field))
    assert again.process("bird cat").tolist() == field.process("bird cat").tolist()
    assert again.embedding_matrix is not None
    assert torch.equal(again.embedding_matrix, matrix)


def test_bad_vectors_name_the_line(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("cat 1 2\nbird 3 x\n")
    field = TextField(embeddings=str(file))
    with pytest.raises(FieldError, match=r"vectors\.txt:2: could not convert"):
        field.setup(["bird"])
    with pytest.raises(FieldError, match="has no vector for any"):
        field.setup(["fish"])


def test_numbers() -> None:
    field = NumberField(scale=True)
    train = [["1", "3"], ["5", "5"]]
    field.setup_columns(train)
    (scaled,) = field.process_columns(train)
    assert isinstance(scaled, torch.Tensor)
    assert scaled.tolist() == [[-1, 0], [1, 0]]
    assert NumberField(integers=True).process_column(["7"]).dtype == torch.int64
    with pytest.raises(FieldError, match="'x' is not a number") as error:
        field.process_column(["1", "x"])
    assert error.value.row == 1
    with pytest.raises(FieldError, match="not a finite number"):
        field.process("nan")
