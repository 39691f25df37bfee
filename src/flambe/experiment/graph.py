"""The graph of a run: which variants may start, which never will, and what waits for each.

Nothing runs here. Shown by ``tests/experiment/test_graph.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from flambe.experiment.spec import ExperimentSpec, StageSpec, StopSpec
from flambe.experiment.variants.expansion import Variant, positions, stages_linked


class StageGraph:
    """What the stages of an experiment depend on.

    Parameters
    ----------
    spec
        The experiment.

    Attributes
    ----------
    ancestors, descendants
        Stage → all stages that it depends on, or that depend on it, in their order.
    """

    def __init__(self, spec: ExperimentSpec) -> None:
        order = positions(spec.pipeline)
        self._stages = {stage.name: stage for stage in spec.stages}
        self.ancestors: dict[str, list[str]] = {}
        for name, config in spec.pipeline.items():
            direct = stages_linked(config, order, name)
            everything = {*direct, *(far for near in direct for far in self.ancestors[near])}
            self.ancestors[name] = sorted(everything, key=order.__getitem__)
        self.descendants: dict[str, list[str]] = {
            name: [later for later in order if name in self.ancestors[later]] for name in order
        }

    def ended_before(self, stage: str) -> set[str]:
        """Return the stages of which every variant must have ended before a stage starts.

        Those are the ancestors that choose among their variants, or whose variants are not known
        before; and all, where the variants of the stage itself are compared, or may be stopped
        together.
        """
        ancestors = self.ancestors[stage]
        if compares(self._stages[stage]):
            return set(ancestors)
        return {name for name in ancestors if _selects(self._stages[name])}

    def waiting_totals(self, totals: Mapping[str, int], expanded: Iterable[str]) -> dict[str, int]:
        """Return how many variants of stages that are not expanded yet wait for each stage.

        Parameters
        ----------
        totals
            Stage → how many variants it will have.
        expanded
            The stages whose variants are known.
        """
        unknown = totals.keys() - set(expanded)
        return {
            name: sum(totals[later] for later in self.descendants[name] if later in unknown)
            for name in self.descendants
        }


def compares(stage: StageSpec) -> bool:
    """Return whether a stage compares its variants with one another while they run."""
    return (
        stage.search.searcher is not None
        or stage.scheduler is not None
        or stage.stop != StopSpec()  # it decides which of them are not run
    )


def _selects(stage: StageSpec) -> bool:
    return stage.reduce is not None or compares(stage)


class VariantGraph:
    """The variants of a run that wait for others.

    Attributes
    ----------
    done
        The ids of the variants that others may build upon.
    waiting
        Id → a variant that waits for others to be done, in the order of the stages.
    """

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.waiting: dict[str, Variant] = {}
        #: Stage → how many of its variants wait.
        self.waiting_in: Counter[str] = Counter()
        self._excluded: set[str] = set()
        #: Id → those that it waits for; and those that wait for it.
        self._missing: dict[str, set[str]] = {}
        self._dependents: dict[str, list[str]] = {}
        #: Id → how many variants wait for it.
        self._weights: Counter[str] = Counter()

    def is_excluded(self, variant: Variant) -> bool:
        """Whether a variant can never run: one that it depends on failed, or was not kept."""
        return not self._excluded.isdisjoint(variant.ancestry.values())

    def is_ready(self, variant: Variant) -> bool:
        """Whether a variant was added, and may start."""
        return variant.id not in self.waiting and not self.is_excluded(variant)

    def add(self, variant: Variant) -> bool:
        """Add a variant that is to be run; return whether all that it depends on is done."""
        missing = set(variant.ancestry.values()) - self.done
        self._weights.update(missing)
        if not missing:
            return True
        self.waiting[variant.id] = variant
        self.waiting_in[variant.stage] += 1
        self._missing[variant.id] = missing
        for identity in missing:
            self._dependents.setdefault(identity, []).append(variant.id)
        return False

    def finish(self, variant_id: str) -> list[Variant]:
        """Record that a variant is done; return those that may start now."""
        self.done.add(variant_id)
        ready = []
        for identity in self._dependents.pop(variant_id, ()):
            missing = self._missing.get(identity)
            if missing is None:
                continue
            missing.discard(variant_id)
            if not missing:
                del self._missing[identity]
                ready.append(self._pop(identity))
        return ready

    def exclude(self, variant_id: str) -> list[Variant]:
        """Record that nothing is built upon a variant; return those that will never run."""
        self._excluded.add(variant_id)
        self.done.discard(variant_id)
        lost = []
        for identity in self._dependents.pop(variant_id, ()):
            if self._missing.pop(identity, None) is not None:
                self._excluded.add(identity)
                lost.append(self._pop(identity))
        return lost

    def _pop(self, variant_id: str) -> Variant:
        variant = self.waiting.pop(variant_id)
        self.waiting_in[variant.stage] -= 1
        return variant

    def weight(self, variant_id: str) -> int:
        """Return how many variants wait for this one."""
        return self._weights[variant_id]
