"""The base of all data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flambe.compile import Component
from flambe.errors import RunError, did_you_mean

SPLITS = ("train", "val", "test")


class DataError(RunError):
    """Data is missing, or cannot be read; for files it says where."""


class BaseDataset(Component):
    """Training, validation and test data.

    A data set of your own sets the attributes that it has; :class:`~flambe.dataset.Table` is the
    quickest kind of sequence, but any sequence of rows will do. A row is a tuple: what the model
    takes, and the target last.

    Attributes
    ----------
    train, val, test
        Sequences of rows.
    """

    train: Sequence[Any] = ()
    val: Sequence[Any] = ()
    test: Sequence[Any] = ()

    def split(self, name: str) -> Sequence[Any]:
        """Return one of the splits.

        Raises
        ------
        DataError
            If there is none of that name, or it is empty.
        """
        if name not in SPLITS:
            hint = did_you_mean(name, SPLITS) or f"there are {', '.join(SPLITS)}"
            raise DataError(f"no split {name!r}: {hint}")
        rows: Sequence[Any] = getattr(self, name)
        if len(rows) == 0:
            raise DataError(f"{type(self).__name__} has no {name} data")
        return rows
