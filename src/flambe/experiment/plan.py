"""What an experiment would run, known before anything is built."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from flambe.compile import Schema
from flambe.compile.values import Grid
from flambe.experiment.counting import count_variants
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.expansion import (
    Expander,
    Variant,
    may_run,
    positions,
    stages_linked,
)
from flambe.experiment.variants.inputs import Inputs, local_resource_paths
from flambe.experiment.variants.lineage import EarlierResults

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


def plan_stages(spec: ExperimentSpec) -> list[PlannedStage]:
    """Return the stages of an experiment."""
    order = positions(spec.pipeline)
    counts = count_variants(spec)
    planned = []
    for stage in spec.stages:
        count = counts[stage.name]
        text = f"{count.running}{_METHODS[count.method]}"
        if stage.reduce is not None and stage.reduce < count.running:
            text += f", {stage.reduce} kept"
        planned.append(
            PlannedStage(
                stage.name,
                _component(stage.config),
                stages_linked(stage.config, order, stage.name),
                text,
                count.running,
                may_run(stage.config),
            )
        )
    return planned


@dataclass
class Resumable:
    """What ``--resume`` would find: for how many variants.

    Attributes
    ----------
    done, begun
        Those with a result, and those that continue from a checkpoint.
    stale
        Why results are stale → how many: these variants are run again.
    """

    done: int = 0
    begun: int = 0
    stale: Counter[str] = field(default_factory=Counter)


def find_resumable(spec: ExperimentSpec, earlier: EarlierResults) -> Resumable:
    """Return what an experiment would find of earlier results.

    Parameters
    ----------
    spec
        The experiment; none of its resources is fetched.
    earlier
        The results. The content of a resource that is not on this machine is taken to be the same.
    """
    inputs = Inputs.of(spec, local_resource_paths(spec))
    expander = Expander(spec.pipeline, spec.seed, spec.resources, inputs)
    resumable = Resumable()
    variants: dict[str, list[Variant]] = {}
    for stage in spec.pipeline:
        variants[stage] = expander.expand(stage, variants)
        for variant in variants[stage]:
            result = earlier.find(variant, expander, only_local=True)
            if result is None or not variant.runs:
                continue
            if result.changes:
                resumable.stale[result.changes] += bool(result.entry.step)
            elif result.entry.status.done:
                resumable.done += 1
            elif result.entry.step:
                resumable.begun += 1
    resumable.stale = +resumable.stale  # without those of no variant
    return resumable


def _component(value: object) -> str:
    if isinstance(value, Schema):
        return f"!{value.tag}"
    if isinstance(value, Grid):
        return " or ".join(dict.fromkeys(_component(element) for element in value.elements))
    return type(value).__name__
