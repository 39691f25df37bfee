"""What a worker needs to run the variants of one stage, on any host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from flambe.compile.state import random_state
from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoint_storage import Storage
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.progress import choices_text


@dataclass(frozen=True)
class Explored:
    """What a member of a population has become.

    Attributes
    ----------
    values
        The values that it has now: path of a search space as text → value.
    copies
        How often it took the state of another member.
    """

    values: Mapping[str, object]
    copies: int = 0


@dataclass
class StageTask:
    """What a worker needs to run the variants of one stage, on any host.

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
        Id → the checkpoint that a variant continues from.
    secrets
        The file of secrets, from flambe's own folder: its variables are set where variants run.
    key
        What was pickled with it is trusted: see :mod:`flambe.compile.state.pickled`.
    retention
        Which checkpoints of a variant are kept.
    explored
        Id → what a member of a population had become when it was interrupted.
    """

    stage: str
    storage: Storage
    variants: dict[str, dict[str, Variant]]
    order: list[str]
    expander: Expander
    resources: dict[str, object] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)
    restore: dict[str, str] = field(default_factory=dict)
    secrets: str = ""
    key: bytes = field(default=b"", repr=False)
    retention: Retention = field(default_factory=Retention)
    explored: dict[str, Explored] = field(default_factory=dict)

    def variant_of(
        self, variant_id: str, values: Mapping[str, object], repetition: int = 0
    ) -> Variant:
        """Return a variant of this stage, with the values that a search suggested for it."""
        variants = self.variants[self.stage]
        if not values:
            return variants[variant_id]
        variant = self.expander.suggest(variants[variant_id], values, repetition)
        return variants.setdefault(variant.id, variant)


def variant_title(variant: Variant) -> str:
    """Return how a variant is called in messages: ``train lr=0.1,n=2``."""
    return f"{variant.stage} {choices_text(variant.choices)}".strip()


def seed_everything(seed: int, stage: str, repetition: int = 0) -> None:
    """Seed Python, NumPy and torch from the seed of the run and a stage.

    A stage is built from the same random numbers wherever it is built, whatever was built before;
    each repetition of a variant is built from others.
    """
    text = f"{seed}:{stage}:{repetition}" if repetition else f"{seed}:{stage}"
    digest = hashlib.sha256(text.encode()).digest()
    random_state.seed(int.from_bytes(digest[:4], "big"))
