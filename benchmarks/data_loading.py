"""Batches from our sampler against torch's DataLoader with its defaults, on one core.

Prints the time of an epoch of each, and how many times faster ours is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset

from flambe.dataset import SklearnDataset, Table
from flambe.field import Ragged
from flambe.sampler import BaseSampler

REPEATS = 9


def _seconds(epoch: Callable[[], Iterable[Any]]) -> float:
    start = time.perf_counter()
    for _ in epoch():
        pass
    return time.perf_counter() - start


def _compare(name: str, ours: Callable[[], Iterable[Any]], theirs: Callable[[], Any]) -> None:
    times: list[tuple[float, float]] = [(_seconds(ours), _seconds(theirs)) for _ in range(REPEATS)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{name:<22} sampler {mine * 1e3:8.2f} ms, DataLoader {other * 1e3:8.2f} ms per epoch; "
        f"{other / mine:.1f} times as fast"
    )


def _pad(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    texts, labels = zip(*rows, strict=True)
    return pad_sequence(list(texts), batch_first=True), torch.stack(labels)


def main() -> None:
    """Measure, and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = SklearnDataset("digits").train
    assert isinstance(digits, Table)
    columns = [column for column in digits.columns if isinstance(column, torch.Tensor)]
    loader = DataLoader(TensorDataset(*columns), batch_size=64, shuffle=True)
    sampler = BaseSampler(64, seed=0)
    _compare("digits, batches of 64", lambda: sampler.sample(digits), lambda: loader)

    lengths = torch.randint(5, 60, (20_000,))
    texts = Ragged(torch.randint(1, 10_000, (int(lengths.sum()),)), lengths)
    labels = torch.randint(0, 10, (len(lengths),))
    table = Table({"text": texts, "label": labels})
    rows = list(table)
    padded: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=64,
        shuffle=True,
        collate_fn=_pad,
    )
    _compare("texts, padded", lambda: sampler.sample(table), lambda: padded)
    buckets = BaseSampler(64, seed=0, bucket_by_length=True)
    _compare("texts, by length", lambda: buckets.sample(table), lambda: padded)


if __name__ == "__main__":
    main()
