"""What an experiment would run, known before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flambe.compile import Schema
from flambe.compile.values import Grid
from flambe.experiment.counting import count_variants
from flambe.experiment.variants import (
    Expander,
    Variant,
    context_of,
    may_run,
    positions,
    stages_linked,
)

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment


_METHODS = {"grid": "", "search": " tried by a search", "draw": ", values drawn"}


@dataclass(frozen=True)
class PlannedStage:
    """One stage: its component, what it links to, and how many variants it has, for people."""

    stage: str
    component: str
    links: list[str]
    variants: str
    count: int = 0
    runs: bool = True


def plan(keywords: Mapping[str, Any]) -> list[PlannedStage]:
    """Return the stages of an experiment.

    Parameters
    ----------
    keywords
        The keywords of an ``!Experiment``, not built.
    """
    pipeline = keywords["pipeline"]
    reduce = keywords.get("reduce") or {}
    order = positions(pipeline)
    planned = []
    for stage, known in count_variants(keywords).items():
        text = f"{known.running}{_METHODS[known.method]}"
        if reduce.get(stage, known.running) < known.running:
            text += f", {reduce[stage]} kept"
        value = pipeline[stage]
        planned.append(
            PlannedStage(
                stage,
                _component(value),
                stages_linked(value, order, stage),
                text,
                known.running,
                may_run(value),
            )
        )
    return planned


def variants(experiment: Experiment) -> list[Variant]:
    """Return the variants of an experiment that are known before it runs."""
    expander = Expander(experiment.pipeline, experiment.seed, context_of(experiment))
    known: dict[str, list[Variant]] = {}
    for stage in experiment.pipeline:
        known[stage] = expander.expand(stage, known)
    return [variant for found in known.values() for variant in found]


def _component(value: Any) -> str:
    if isinstance(value, Schema):
        return f"!{value.tag}"
    if isinstance(value, Grid):
        return " or ".join(dict.fromkeys(_component(element) for element in value.elements))
    return type(value).__name__
