"""What a run would reuse and run, for each variant: known before anything is built."""

from __future__ import annotations

import enum
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flambe.experiment.counting import count_variants
from flambe.experiment.planning.earlier import EarlierRuns
from flambe.experiment.search.stage_search import spaces_of
from flambe.experiment.spec import ExperimentSpec, StageSpec
from flambe.experiment.storage.saved_results import SavedResult
from flambe.experiment.variants.expansion import Expander, Variant, stages_linked
from flambe.experiment.variants.inputs import Inputs, local_resource_paths
from flambe.experiment.variants.reasons import Reasons
from flambe.experiment.variants.recognition import adopted, recall, recognize, suggested
from flambe.experiment.variants.record import LineageRecord
from flambe.progress import (
    Status,
    VariantState,
    choices_text,
    group_seeds,
    is_number,
    ranked_groups,
)


class Action(str, enum.Enum):
    """What becomes of a variant."""

    REUSE = "reuse"
    #: From its last checkpoint.
    CONTINUE = "continue"
    RUN = "run"
    #: What it builds upon is not kept by ``reduce``.
    SKIP = "skip"


@dataclass(frozen=True)
class Decision:
    """What becomes of one variant.

    Attributes
    ----------
    variant
        Its hyper-parameters, on one line.
    action, reason
        What becomes of it, and why.
    """

    variant: str
    action: Action
    reason: str = ""


@dataclass
class StageDecisions:
    """What becomes of the variants of a stage.

    Attributes
    ----------
    decisions
        For each variant that is known.
    to_suggest
        How many more are run, of which no more is known: those that a search is going to suggest,
        and all of a first run.
    is_certain
        Whether it is known which variants there are: not while ``reduce`` of an earlier stage
        depends on what is to be run.
    seconds
        What a variant took in earlier runs; None if there is none.
    """

    decisions: list[Decision] = field(default_factory=list)
    to_suggest: int = 0
    is_certain: bool = True
    seconds: float | None = None

    def count(self, *actions: Action) -> int:
        """Return of how many variants something becomes."""
        return sum(decision.action in actions for decision in self.decisions)

    def reasons(self) -> Counter[tuple[Action, str]]:
        """Return what becomes of how many, and why."""
        return Counter((decision.action, decision.reason) for decision in self.decisions)


class Decider:
    """Decides what a run would reuse.

    Parameters
    ----------
    spec
        The experiment; none of its resources is fetched, and what is not on this machine is taken
        to be the same.
    runs
        What earlier runs left.
    use_stale
        Whether stale results are used.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        runs: EarlierRuns,
        *,
        use_stale: bool = False,
    ) -> None:
        earlier, before = runs.results, runs.record
        self.spec, self.earlier, self.before, self.use_stale = spec, earlier, before, use_stale
        self.saved = runs.saved
        # Without results there is nothing to compare, and resources may be large.
        inputs = Inputs.of(spec, local_resource_paths(spec)) if earlier.entries else Inputs()
        self.expander = Expander(spec.pipeline, spec.seed, spec.resources, inputs, seeds=spec.seeds)
        recall(self.expander, earlier, before)
        now = LineageRecord.of(spec, self.expander)
        self.reasons = Reasons(earlier, before, self.expander, now)
        self.variants: dict[str, list[Variant]] = {}
        #: Ids of variants whose results are used → their figures.
        self._figures: dict[str, float | None] = {}
        #: Ids of variants that are left out → why.
        self._left_out: dict[str, str] = {}
        #: Stages of which it is not known what is built upon.
        self._uncertain: set[str] = set()

    def decide(self) -> dict[str, StageDecisions]:
        """Return what becomes of the variants of each stage."""
        if self.earlier.entries:
            return {stage.name: self._decide(stage) for stage in self.spec.stages}
        # All are run: they need not be expanded to be counted.
        counts = count_variants(self.spec)
        decided = {}
        for stage in self.spec.stages:
            linked = stages_linked(stage.config, self.expander.order, stage.name)
            count = counts[stage.name]
            is_certain = not self._uncertain.intersection(linked)
            decided[stage.name] = StageDecisions([], count.running, is_certain)
            kept = (stage.reduce or 0) * max(1, len(self.spec.seeds))
            if not is_certain or (stage.reduce is not None and kept < count.running):
                self._uncertain.add(stage.name)
        return decided

    def _decide(self, stage: StageSpec) -> StageDecisions:
        name = stage.name
        recognize(self.expander, self.earlier, self.before, name, self.variants)
        candidates = self.expander.expand(name, self.variants)
        decided = StageDecisions(seconds=self._seconds(name))
        ancestors = {ancestor for variant in candidates for ancestor in variant.ancestry}
        decided.is_certain = not ancestors & self._uncertain
        self.variants[name] = []
        if spaces_of(name, stage.config):
            tried = list(self._tried(name, candidates))
            total = count_variants(self.spec)[name].running
            decided.to_suggest = max(0, total - len(tried))
            candidates = tried[:total]
        for candidate in candidates:
            self.variants[name].append(self._of_variant(candidate, decided))
        self._reduce(stage, decided)
        return decided

    def _of_variant(self, variant: Variant, decided: StageDecisions) -> Variant:
        text = choices_text(variant.choices)
        parents = variant.parents.values()
        if reason := next((self._left_out[p] for p in parents if p in self._left_out), ""):
            self._left_out[variant.id] = reason
            decided.decisions.append(Decision(text, Action.SKIP, reason))
            return variant
        result = self.earlier.find(variant, self.expander, only_local=True)
        saved = SavedResult()
        if result is not None:
            entry = result.entry
            saved = self.saved.look_up(entry, runs=variant.runs, stage=variant.stage)
        usable = result is not None and (not result.changes or self.use_stale)
        if result is not None and not usable and not (saved.has_begun or saved.is_complete):
            result = None  # nothing is left of it: a run reports no more than that
        if result is not None and usable and result.entry.id != variant.id:
            variant = adopted(variant, result)
            self.earlier.looked_up[variant.id] = variant
        if result is not None and usable and (saved.is_complete or not variant.runs):
            self._figures[variant.id] = saved.metric
            reason = result.changes or self.reasons.reused(variant, result)
            action = Action.REUSE
        else:
            reason = self.reasons.run(variant, result)
            action = Action.CONTINUE if usable and saved.has_begun else Action.RUN
        if variant.runs:
            decided.decisions.append(Decision(text, action, reason))
        return variant

    def _tried(self, stage: str, bases: Sequence[Variant]) -> Iterator[Variant]:
        """Yield the variants that a search, or random draws, suggested before."""
        names = self.reasons.earlier_names(stage)
        seen: set[str] = set()
        for entry in self.earlier.entries.values():
            if entry.stage in names and entry.values and entry.status is not Status.FAILED:
                variant = suggested(entry, bases, self.expander)
                if variant is not None and variant.id not in seen:
                    seen.add(variant.id)
                    yield variant

    def _reduce(self, stage: StageSpec, decided: StageDecisions) -> None:
        """Determine which variants are built upon, where that is known already."""
        if not decided.is_certain:
            self._uncertain.add(stage.name)
        if stage.reduce is None:
            return
        if decided.to_suggest or decided.count(Action.RUN, Action.CONTINUE):
            self._uncertain.add(stage.name)
            return
        done = [
            VariantState(
                v.id, v.stage, v.name, metric=self._figures[v.id], seed=v.seed, group=v.group
            )
            for v in self.variants[stage.name]
            if is_number(self._figures.get(v.id))
        ]
        groups = ranked_groups(group_seeds(done))[: stage.reduce]
        kept = {entry.id for group in groups for entry in group.variants}
        for variant in self.variants[stage.name]:
            if variant.id not in kept:
                text = f"{stage.name} {choices_text(variant.choices)}".strip()
                self._left_out.setdefault(variant.id, f"{text} was not kept by reduce")

    def _seconds(self, stage: str) -> float | None:
        """Return what a variant of a stage took in earlier runs, mostly."""
        names = self.reasons.earlier_names(stage)
        durations = [
            entry.ended - entry.started
            for entry in self.earlier.entries.values()
            if entry.stage in names and entry.status.done
            if entry.started is not None and entry.ended is not None
        ]
        return statistics.median(durations) if durations else None
