"""Training, evaluation and scripts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flambe.learn.evaluator import Evaluator
    from flambe.learn.script import Script
    from flambe.learn.trainer import Trainer

__all__ = [
    "Evaluator",
    "Script",
    "Trainer",
]

# Loaded when they are used, so that what needs no torch does not import it.
_MODULES = {
    "Evaluator": "evaluator",
    "Script": "script",
    "Trainer": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
