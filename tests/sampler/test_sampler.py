from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flambe.dataset import DataError, SklearnDataset, Table
from flambe.errors import RunError
from flambe.field import Ragged
from flambe.sampler import BaseSampler

DATA = Table({"x": torch.arange(103) * 2, "y": torch.arange(103)})


def _seen(batches: Any) -> list[list[int]]:
    return [batch[-1].tolist() for batch in batches]


@given(st.integers(1, 120), st.booleans(), st.booleans())
def test_an_epoch_has_each_row_once(batch_size: int, shuffle: bool, drop_last: bool) -> None:
    sampler = BaseSampler(batch_size, shuffle, drop_last=drop_last, seed=1)
    batches = _seen(sampler.sample(DATA))
    rows = list(itertools.chain(*batches))
    assert len(batches) == sampler.length(DATA)
    assert len(rows) == len(set(rows))
    if drop_last:
        assert all(len(batch) == batch_size for batch in batches)
    else:
        assert sorted(rows) == list(range(103))
    if not shuffle:
        assert rows == list(range(len(rows)))


def test_rows_stay_together() -> None:
    for x, y in BaseSampler(16).sample(DATA):
        assert torch.equal(x, 2 * y)


def test_epochs_differ_and_seeds_repeat() -> None:
    first, second = _seen(BaseSampler(103, seed=1).sample(DATA, 2))
    assert first != second
    assert _seen(BaseSampler(103, seed=1).sample(DATA, 2)) == [first, second]
    assert _seen(BaseSampler(103, seed=2).sample(DATA)) != [first]
    # Epoch 1 of seed 0 is not epoch 0 of seed 1.
    assert _seen(BaseSampler(103, seed=0).sample(DATA, 2))[1] != first


@pytest.mark.parametrize("taken", [0, 1, 6, 7, 8, 20])
@pytest.mark.parametrize("bucket", [False, True])
def test_stream_resumes_in_the_middle(taken: int, bucket: bool) -> None:
    lengths = torch.randint(1, 9, (103,))
    data = Table({"text": Ragged(torch.ones(int(lengths.sum())), lengths), "y": torch.arange(103)})
    sampler = BaseSampler(16, bucket_by_length=bucket)
    stream = sampler.stream(data)
    _seen(itertools.islice(stream, taken))
    state = sampler.get_state()
    again = BaseSampler(16, bucket_by_length=bucket)
    again.load_state({path: dict(values) for path, values in state.items()})
    expected = _seen(itertools.islice(stream, 20))
    # A pass for evaluation in between does not matter.
    _seen(again.sample(data))
    assert _seen(itertools.islice(again.stream(data), 20)) == expected


def test_padding_and_buckets() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(1, 50, (2000,))
    data = Table({"text": Ragged(torch.ones(int(lengths.sum())), lengths), "y": torch.arange(2000)})

    def padding(**options: Any) -> float:
        share = [
            float((text == -1).float().mean())
            for text, _ in BaseSampler(32, seed=0, pad_index=-1, **options).sample(data)
        ]
        return sum(share) / len(share)

    for text, rows in BaseSampler(32, pad_index=-1).sample(data):
        assert torch.equal((text != -1).sum(1), lengths[rows])
    assert padding(bucket_by_length=True) < 0.1
    assert padding() > 0.4
    order = list(itertools.chain(*_seen(BaseSampler(32, bucket_by_length=True).sample(data))))
    assert sorted(order) == list(range(2000))


class _Lazy:
    """Data that is not in memory."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((index % 3 + 1,), float(index)), index


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_data_that_is_not_in_memory(workers: int) -> None:
    sampler = BaseSampler(8, seed=3, n_workers=workers, pad_index=-1)
    batches = list(sampler.sample(_Lazy()))  # type: ignore[arg-type]
    in_memory = [_Lazy()[index] for index in range(20)]
    expected = list(BaseSampler(8, seed=3, pad_index=-1).sample(in_memory))
    assert len(batches) == len(expected) == 3
    for mine, other in zip(batches, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def test_digits_batches_are_rows() -> None:
    data = SklearnDataset("digits").train
    features, labels = next(BaseSampler(5, shuffle=False).stream(data))
    assert torch.equal(features[3], data[3][0])
    assert labels[3] == data[3][1]


def test_nothing_to_batch() -> None:
    with pytest.raises(RunError, match="no batch of 200 from 103 rows"):
        next(BaseSampler(200, drop_last=True).stream(DATA))
    with pytest.raises(DataError, match="give the data set a transform"):
        next(BaseSampler(2).stream(Table({"text": ["a", "b", "c"]})))
    with pytest.raises(ValueError, match="at least 1"):
        BaseSampler(0)
