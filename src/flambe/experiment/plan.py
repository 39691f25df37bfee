"""What an experiment would run, known before anything is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flambe.compile import Schema
from flambe.compile.values import Grid
from flambe.experiment.counting import count_variants
from flambe.experiment.variants.expansion import (
    Expander,
    Variant,
    may_run,
    positions,
    stages_linked,
)
from flambe.experiment.variants.inputs import Inputs, local_places
from flambe.experiment.variants.lineage import Earlier

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


@dataclass(frozen=True)
class Resumed:
    """What ``--resume`` would find: for how many variants.

    Attributes
    ----------
    done, begun
        Those with a result, and those that go on from a checkpoint.
    stale
        Why results are stale → how many: these variants are run again.
    """

    done: int = 0
    begun: int = 0
    stale: Counter[str] = field(default_factory=Counter)


def resumed(experiment: Experiment, earlier: Earlier) -> Resumed:
    """Return what an experiment would find of earlier results.

    Parameters
    ----------
    experiment
        The experiment; nothing of it is fetched.
    earlier
        The results. The content of a resource that is not on this machine is taken to be the same.
    """
    inputs = Inputs.of(experiment, local_places(experiment))
    expander = Expander(experiment.pipeline, experiment.seed, experiment.resources, inputs)
    found = {"done": 0, "begun": 0}
    stale: Counter[str] = Counter()
    known: dict[str, list[Variant]] = {}
    for stage in experiment.pipeline:
        known[stage] = expander.expand(stage, known)
        for variant in known[stage]:
            result = earlier.find(variant, only_known=True)
            if result is None or not variant.runs:
                continue
            if result.changes:
                stale[result.changes] += bool(result.entry.step)
            elif result.entry.status.done:
                found["done"] += 1
            elif result.entry.step:
                found["begun"] += 1
    return Resumed(**found, stale=+stale)


def _component(value: Any) -> str:
    if isinstance(value, Schema):
        return f"!{value.tag}"
    if isinstance(value, Grid):
        return " or ".join(dict.fromkeys(_component(element) for element in value.elements))
    return type(value).__name__
