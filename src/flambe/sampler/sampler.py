"""From the rows of a split to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch

from flambe.compile import Component
from flambe.dataset import Table
from flambe.errors import RunError
from flambe.field import Ragged
from flambe.sampler._collate import Batch, Collate, Columns, columns_of, from_columns

# Batches of similar lengths are made within pools of so many, so that they stay random.
_POOL = 50


class BaseSampler(Component):
    """Makes batches: tuples with a tensor for each column.

    The order of an epoch follows from the seed and the number of the epoch alone, so that a run
    that is resumed in the middle of an epoch goes on with the very batch that would have been next.

    Parameters
    ----------
    batch_size
        The number of rows in a batch.
    shuffle
        Whether each epoch has another order.
    drop_last
        Whether to leave out the last batch of an epoch if it is smaller.
    pad_index
        What sequences of different lengths are padded with, at their end.
    seed
        Of the order. By default it is drawn from torch's, and kept with the state.
    bucket_by_length
        Whether batches are made of sequences of similar length, so that there is less padding.
    n_workers
        How many processes read the rows of data that is not in memory (a sequence of its own
        class). What is in memory needs none: its batches are cut by a few tensor operations.
    pin_memory
        Whether batches are in pinned memory, for copies to a GPU that do not wait.

    Attributes
    ----------
    epoch, position
        The epoch that :meth:`stream` is in, and how many of its batches were taken.
    """

    _transient: ClassVar[tuple[str, ...]] = ("_prepared",)  # a cache

    def __init__(
        self,
        batch_size: int = 64,
        shuffle: bool = True,
        *,
        drop_last: bool = False,
        pad_index: int = 0,
        seed: int | None = None,
        bucket_by_length: bool = False,
        n_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.pad_index = pad_index
        self.seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.bucket_by_length = bucket_by_length
        self.n_workers = n_workers
        self.pin_memory = pin_memory
        self.epoch = 0
        self.position = 0
        self._prepared: list[tuple[Sequence[object], Columns | None]] = []
        self.register_attrs("seed", "epoch", "position")

    def length(self, data: Sequence[object]) -> int:
        """Return the number of batches of an epoch."""
        full, rest = divmod(len(data), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def sample(self, data: Sequence[object], n_epochs: int = 1) -> Iterator[Batch]:
        """Yield the batches of some epochs from the first on; the position does not matter."""
        for epoch in range(n_epochs):
            yield from self._batches(data, epoch, 0)

    def stream(self, data: Sequence[object]) -> Iterator[Batch]:
        """Yield batches without end, from the current position on.

        Raises
        ------
        RunError
            If an epoch has no batch.
        """
        if self.length(data) == 0:
            raise RunError(
                f"no batch of {self.batch_size} from {len(data)} rows: "
                "give a smaller batch_size, or drop_last: false"
            )
        while True:
            for batch in self._batches(data, self.epoch, self.position):
                self.position += 1
                yield batch
            self.epoch += 1
            self.position = 0

    # -- order --------------------------------------------------------------------------------

    def _order(self, n: int, epoch: int, lengths: torch.Tensor | None) -> list[torch.Tensor]:
        """Return the rows of each batch of an epoch."""
        generator = self._generator(epoch)
        order = torch.randperm(n, generator=generator) if self.shuffle else torch.arange(n)
        if lengths is not None:
            pools = torch.split(order, self.batch_size * _POOL)
            order = torch.cat([pool[lengths[pool].argsort(stable=True)] for pool in pools])
        batches = list(torch.split(order, self.batch_size))
        if self.drop_last and batches and len(batches[-1]) < self.batch_size:
            batches.pop()
        if lengths is not None and self.shuffle:
            mixed = torch.randperm(len(batches), generator=generator)
            batches = [batches[index] for index in mixed.tolist()]
        return batches

    def _generator(self, epoch: int) -> torch.Generator:
        # A large odd factor keeps the orders of neighbouring seeds and epochs apart.
        return torch.Generator().manual_seed((self.seed * 0x9E3779B97F4A7C15 + epoch) % 2**63)

    def _batches(self, data: Sequence[object], epoch: int, start: int) -> Iterator[Batch]:
        columns = self._columns(data)
        lengths = self._lengths(data, columns) if self.bucket_by_length else None
        order = self._order(len(data), epoch, lengths)[start:]
        if columns is None:
            yield from self._read(data, order, epoch)
            return
        for rows in order:
            batch = from_columns(columns, rows, self.pad_index)
            yield tuple(column.pin_memory() for column in batch) if self.pin_memory else batch

    def _columns(self, data: Sequence[object]) -> Columns | None:
        """Return data as columns, made once; None if it is not in memory."""
        if isinstance(data, Table):
            return columns_of(data)
        for earlier, columns in self._prepared:
            if earlier is data:
                return columns
        columns = columns_of(data)
        self._prepared = [*self._prepared[-3:], (data, columns)]
        return columns

    def _lengths(self, data: Sequence[Any], columns: Columns | None) -> torch.Tensor:
        for column in columns or ():
            if isinstance(column, Ragged):
                return column.lengths
        if columns is None:
            return torch.tensor([len(data[row][0]) for row in range(len(data))])
        return torch.zeros(len(data), dtype=torch.int64)

    def _read(
        self, data: Sequence[object], order: list[torch.Tensor], epoch: int
    ) -> Iterator[Batch]:
        """Read rows one by one, here or in other processes."""
        collate = Collate(self.pad_index)
        if self.n_workers == 0:
            for rows in order:
                batch = collate([data[row] for row in rows.tolist()])
                yield tuple(column.pin_memory() for column in batch) if self.pin_memory else batch
            return
        # It draws a number for its processes: not of those that the model draws from, for a run
        # that is resumed in the middle of an epoch makes one more.
        loader: torch.utils.data.DataLoader[object] = torch.utils.data.DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=[rows.tolist() for rows in order],
            num_workers=self.n_workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
            generator=self._generator(epoch),
        )
        yield from loader
