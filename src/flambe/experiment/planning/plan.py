"""What an experiment would run, known before anything is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flambe.compile import Schema
from flambe.compile.values import Grid
from flambe.experiment.counting import count_variants, product_text
from flambe.experiment.graph import StageGraph
from flambe.experiment.planning.decisions import Action, Decider, StageDecisions
from flambe.experiment.planning.earlier import EarlierRuns
from flambe.experiment.planning.schedule import StageLoad, makespan
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.expansion import may_run, positions, stages_linked

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
    total: int = 0
    factors: tuple[int, ...] = ()
    method: str = "grid"
    reduce: int | None = None

    @property
    def product(self) -> str:
        """Where its variants come from: ``3 × 2 × 2 = 12``."""
        text = product_text(self.factors, self.total)
        text = text if self.count == self.total else f"{self.count} of {text}"
        text += _METHODS[self.method]
        return f"{text}, {self.reduce} kept" if self.reduce is not None else text


def plan_stages(spec: ExperimentSpec) -> list[PlannedStage]:
    """Return the stages of an experiment."""
    order = positions(spec.pipeline)
    counts = count_variants(spec)
    planned = []
    for stage in spec.stages:
        count = counts[stage.name]
        text = f"{count.running}{_METHODS[count.method]}"
        kept = stage.reduce and stage.reduce * max(1, len(spec.seeds))
        kept = kept if kept is not None and kept < count.running else None
        if kept is not None:
            text += f", {kept} kept"
        planned.append(
            PlannedStage(
                stage.name,
                _component(stage.config),
                stages_linked(stage.config, order, stage.name),
                text,
                count.running,
                may_run(stage.config),
                count.count,
                count.factors,
                count.method,
                kept,
            )
        )
    return planned


@dataclass(frozen=True)
class StagePlan:
    """What a run would do in one stage.

    Attributes
    ----------
    stage
        The stage.
    decided
        What becomes of its variants.
    slots
        How many of its variants run at a time, if no other stage runs; 0 if that is not known.
    """

    stage: PlannedStage
    decided: StageDecisions
    slots: int = 0

    @property
    def reused(self) -> int:
        """How many results are reused; at most, where the variants are not certain."""
        return min(self.decided.count(Action.REUSE), self.stage.count)

    @property
    def continued(self) -> int:
        """How many variants continue from a checkpoint."""
        return self.decided.count(Action.CONTINUE)

    @property
    def run(self) -> int:
        """How many variants are run, or continue; at most, where that is not certain."""
        if not self.stage.runs:
            return 0
        if not self.decided.is_certain:
            return self.stage.count
        return self.decided.count(Action.RUN, Action.CONTINUE) + self.decided.to_suggest

    @property
    def waves(self) -> int:
        """How many times all slots are filled."""
        return math.ceil(self.run / self.slots) if self.slots else 0

    @property
    def seconds(self) -> float | None:
        """How long it takes alone, if variants take what they took before; None: not known."""
        if not self.run:
            return 0.0
        each = self.decided.seconds
        return each * self.waves if each is not None and self.waves else None

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        stage, decided = self.stage, self.decided
        return {
            "name": stage.stage,
            "component": stage.component,
            "links": stage.links,
            "runs": stage.runs,
            "variants": stage.total,
            "product": list(stage.factors),
            "method": stage.method,
            "reduce": stage.reduce,
            "certain": decided.is_certain,
            "reused": self.reused,
            "run": self.run,
            "continued": self.continued,
            "skipped": decided.count(Action.SKIP),
            "waves": self.waves or None,
            "seconds": self.seconds,
            "decisions": [
                {"variant": d.variant, "action": d.action.value, "reason": d.reason}
                for d in decided.decisions
            ],
        }


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    stages
        Stage by stage.
    slots
        How many variants run at a time; 0 if that is not known.
    has_earlier
        Whether there are results to resume.
    seconds
        How long the stages take together whose variants were run before; None if none was.
    """

    stages: list[StagePlan]
    slots: int = 0
    has_earlier: bool = False
    seconds: float | None = None

    def summary(self) -> str:
        """Return how many variants are done: ``8 of 12 variants are done, 4 are run``."""
        total = sum(stage.stage.count for stage in self.stages if stage.stage.runs)
        reused = sum(stage.reused for stage in self.stages if stage.stage.runs)
        begun = sum(stage.continued for stage in self.stages if stage.stage.runs)
        run = sum(stage.run for stage in self.stages) - begun
        text = f"{reused} of {total} variants are done"
        text += f", {begun} continue from their checkpoints" if begun else ""
        return text + (f", {run} are run" if run else "")

    @property
    def untimed(self) -> list[str]:
        """The stages that run variants, and of which it is not known how long these take."""
        return [stage.stage.stage for stage in self.stages if stage.seconds is None]

    def as_json(self) -> dict[str, object]:
        """Return it as plain JSON."""
        return {
            "slots": self.slots or None,
            "earlier_results": self.has_earlier,
            "seconds": self.seconds,
            "untimed_stages": self.untimed,
            "stages": [stage.as_json() for stage in self.stages],
        }


def make_plan(
    spec: ExperimentSpec,
    earlier: EarlierRuns,
    *,
    slots: int = 0,
    use_stale: bool = False,
) -> Plan:
    """Return what a run of an experiment would do.

    Parameters
    ----------
    spec, earlier, use_stale
        See :class:`~flambe.experiment.planning.decisions.Decider`.
    slots
        How many variants run at a time; 0 if that is not known.
    """
    decisions = Decider(spec, earlier, use_stale=use_stale).decide()
    stages = []
    for stage in plan_stages(spec):
        limit = spec.stage(stage.stage).max_parallel or slots
        stages.append(StagePlan(stage, decisions[stage.stage], min(slots, limit)))
    seconds = _seconds(spec, stages, slots)
    return Plan(stages, slots, bool(earlier.results.entries), seconds)


def _seconds(spec: ExperimentSpec, stages: Sequence[StagePlan], slots: int) -> float | None:
    """Return how long stages take that share the slots; None if that is not known of any."""
    graph = StageGraph(spec)
    loads = [
        StageLoad(
            name,
            stage.run,
            stage.decided.seconds or 0.0,
            spec.stage(name).max_parallel,
            frozenset(graph.ancestors[name]),
            frozenset(graph.ended_before(name)),
        )
        for stage in stages
        if stage.run
        for name in [stage.stage.stage]
    ]
    if loads and (not slots or all(stage.seconds is None for stage in stages if stage.run)):
        return None
    return makespan(loads, slots) if loads else 0.0


def _component(value: object) -> str:
    if isinstance(value, Schema):
        return f"!{value.tag}"
    if isinstance(value, Grid):
        return " or ".join(dict.fromkeys(_component(element) for element in value.elements))
    return type(value).__name__
