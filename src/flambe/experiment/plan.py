"""What an experiment would run, known before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flambe.compile import Schema
from flambe.compile.values import Grid
from flambe.experiment.variants import Expander, Variant, domains, stages_linked


@dataclass(frozen=True)
class PlannedStage:
    """One stage: its component, what it links to, and how many variants it has, for people."""

    stage: str
    component: str
    links: list[str]
    variants: str


def plan(keywords: Mapping[str, Any]) -> list[PlannedStage]:
    """Return the stages of an experiment.

    Parameters
    ----------
    keywords
        The keywords of an ``!Experiment``, not built.
    """
    pipeline = keywords["pipeline"]
    reduce = keywords.get("reduce") or {}
    search = keywords.get("search") or {}
    expander = Expander(pipeline, keywords.get("seed", 0))
    known: dict[str, list[Variant]] = {}
    planned = []
    for stage, value in pipeline.items():
        known[stage] = expander.expand(stage, known)
        count = len(known[stage])
        text = str(count)
        if stage in search:
            text = f"{_samples(search[stage])} tried by a search"
        elif domains(value):
            text = f"{count}, values drawn"
        if stage in reduce and reduce[stage] < count:
            known[stage] = known[stage][: reduce[stage]]
            text += f", {reduce[stage]} kept"
        planned.append(
            PlannedStage(stage, _component(value), stages_linked(value, pipeline, stage), text)
        )
    return planned


def _samples(value: Any) -> int:
    from flambe.experiment.search import SAMPLES

    return SAMPLES if isinstance(value, Schema) else int(value.get("num_samples", SAMPLES))


def _component(value: Any) -> str:
    if isinstance(value, Schema):
        return f"!{value.tag}"
    if isinstance(value, Grid):
        return " or ".join(dict.fromkeys(_component(element) for element in value.elements))
    return type(value).__name__
