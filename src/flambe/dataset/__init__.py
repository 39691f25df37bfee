"""Data sets: training, validation and test data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
_MODULES = {
    "BaseDataset": "dataset",
    "DataError": "dataset",
    "SklearnDataset": "sklearn",
    "Table": "table",
    "TabularDataset": "tabular",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
