"""Experiments: variants, the stage graph, trials, checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment

__all__ = ["Experiment"]

# What shows runs, or reads them, needs no experiment.
__getattr__ = lazy_exports(__name__, {"Experiment": "experiment"})
