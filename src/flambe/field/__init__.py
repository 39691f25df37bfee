"""From the values of a column to tensors: labels, text, numbers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flambe.field.field import Field, FieldError
    from flambe.field.label import LabelField
    from flambe.field.number import NumberField
    from flambe.field.ragged import Ragged
    from flambe.field.text import TextField
    from flambe.field.tokenizer import CharTokenizer, Tokenizer, WordTokenizer

__all__ = [
    "CharTokenizer",
    "Field",
    "FieldError",
    "LabelField",
    "NumberField",
    "Ragged",
    "TextField",
    "Tokenizer",
    "WordTokenizer",
]

# Loaded when they are used, so that what needs no torch does not import it.
_MODULES = {
    "Field": "field",
    "FieldError": "field",
    "LabelField": "label",
    "NumberField": "number",
    "Ragged": "ragged",
    "TextField": "text",
    "CharTokenizer": "tokenizer",
    "Tokenizer": "tokenizer",
    "WordTokenizer": "tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
