"""Training, evaluation and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

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
__getattr__ = lazy_exports(
    __name__,
    {
        "Evaluator": "evaluator",
        "Script": "script",
        "Trainer": "trainer",
    },
)
