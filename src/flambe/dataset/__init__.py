"""Data sets: training, validation and test data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.dataset.dataset import BaseDataset, DataError
    from flambe.dataset.sklearn import SklearnDataset
    from flambe.dataset.table import Table
    from flambe.dataset.tabular import TabularDataset

__all__ = [
    "BaseDataset",
    "DataError",
    "SklearnDataset",
    "Table",
    "TabularDataset",
]

# Loaded when they are used, so that what needs no torch does not import it.
__getattr__ = lazy_exports(
    __name__,
    {
        "BaseDataset": "dataset",
        "DataError": "dataset",
        "SklearnDataset": "sklearn",
        "Table": "table",
        "TabularDataset": "tabular",
    },
)
