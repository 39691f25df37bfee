"""What the variants of a stage have in common: the task that workers are given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flambe.compile.state import random_state
from flambe.experiment.storage.checkpoint_storage import Storage
from flambe.experiment.variants.expansion import Expander, Variant


@dataclass
class StageTask:
    """All that it takes to run the variants of one stage, on any host.

    Attributes
    ----------
    stage
        The stage.
    storage
        Where the folder of the run is.
    variants
        Stage → id → variant: of this stage, and of those that it builds upon.
    order
        The stages, in order.
    expander
        Makes the variants that a search suggests.
    resources
        Name → where it is on the host.
    extensions
        Name → where it came from.
    restore
        Id → the checkpoint that a variant goes on from.
    secrets
        The file of secrets, from flambe's own folder: its variables are set where variants run.
    key
        What was pickled with it is trusted: see :mod:`flambe.compile.state.pickled`.
    """

    stage: str
    storage: Storage
    variants: dict[str, dict[str, Variant]]
    order: list[str]
    expander: Expander
    resources: dict[str, Any] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    restore: dict[str, str] = field(default_factory=dict)
    secrets: str = ""
    key: bytes = field(default=b"", repr=False)

    def of(self, variant_id: str, values: Mapping[str, Any], repetition: int = 0) -> Variant:
        """Return a variant of this stage, with the values that a search suggested for it."""
        known = self.variants[self.stage]
        if not values:
            return known[variant_id]
        variant = self.expander.suggest(known[variant_id], values, repetition)
        return known.setdefault(variant.id, variant)


def seed_everything(seed: int, stage: str, repetition: int = 0) -> None:
    """Seed Python, NumPy and torch from the seed of the run and a stage.

    A stage is built from the same numbers wherever it is built, whatever was built before it; a
    repetition of a variant from others.
    """
    text = f"{seed}:{stage}:{repetition}" if repetition else f"{seed}:{stage}"
    digest = hashlib.sha256(text.encode()).digest()
    random_state.seed(int.from_bytes(digest[:4], "big"))
