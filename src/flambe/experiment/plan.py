"""What an experiment would run, known before anything is built."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flambe.compile import Schema
from flambe.compile.values import Grid, path_text
from flambe.experiment.search import Search
from flambe.experiment.variants import Expander, Variant, context_of, domains, stages_linked

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment


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
    search = keywords.get("search") or {}
    expander = Expander(pipeline, keywords.get("seed", 0))
    known: dict[str, list[Variant]] = {}
    planned = []
    for stage, value in pipeline.items():
        known[stage], how = _tried(expander, expander.expand(stage, known), search.get(stage))
        count, runs = len(known[stage]), any(variant.runs for variant in known[stage])
        text = f"{count}{how}"
        if stage in reduce and reduce[stage] < len(known[stage]):
            known[stage] = known[stage][: reduce[stage]]
            text += f", {reduce[stage]} kept"
        planned.append(
            PlannedStage(
                stage,
                _component(value),
                stages_linked(value, pipeline, stage),
                text,
                count,
                runs,
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


def _tried(expander: Expander, bases: list[Variant], search: Any) -> tuple[list[Variant], str]:
    """Return as many variants as will be tried, and how they are found.

    Values of search spaces are not known yet: numbers stand for them.
    """
    if not any(domains(base.config) for base in bases):
        return bases, ""
    found = Search.read(search)
    if found.searcher is not None:
        numbered = list(zip(itertools.cycle(bases), range(found.num_samples)))
        how = " tried by a search"
    else:
        numbered = [(base, n) for base in bases for n in range(found.num_samples)]
        how = ", values drawn"
    return [_numbered(expander, base, number) for base, number in numbered], how


def _numbered(expander: Expander, base: Variant, number: int) -> Variant:
    paths = domains(base.config)
    if not paths:
        return base
    return expander.suggest(base, {path_text((base.stage, *path)): number for path in paths})


def _component(value: Any) -> str:
    if isinstance(value, Schema):
        return f"!{value.tag}"
    if isinstance(value, Grid):
        return " or ".join(dict.fromkeys(_component(element) for element in value.elements))
    return type(value).__name__
