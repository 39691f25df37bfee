"""From the values of a column to tensors: labels, text, numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

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
__getattr__ = lazy_exports(
    __name__,
    {
        "Field": "field",
        "FieldError": "field",
        "LabelField": "label",
        "NumberField": "number",
        "Ragged": "ragged",
        "TextField": "text",
        "CharTokenizer": "tokenizer",
        "Tokenizer": "tokenizer",
        "WordTokenizer": "tokenizer",
    },
)
