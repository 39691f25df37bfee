"""Why a variant is run, or its result is reused: what differs from the run before, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from flambe.errors import listed
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.lineage import EarlierResult, EarlierResults
from flambe.experiment.variants.record import LineageRecord
from flambe.progress import Status, choices_text

MOST = 3  # differences that are named


class Reasons:
    """Explains which variants are run, and which results are reused.

    Parameters
    ----------
    earlier
        The earlier results.
    before
        What the run before wrote down; None if it was one of an earlier version.
    expander
        Makes the variants.
    now
        What this run writes down.
    """

    def __init__(
        self,
        earlier: EarlierResults,
        before: LineageRecord | None,
        expander: Expander,
        now: LineageRecord,
    ) -> None:
        self.earlier, self.before, self.expander, self.now = earlier, before, expander, now
        #: Id of a variant of this run → why it is run; those that are reused are left out.
        self._running: dict[str, str] = {}
        self._seen: dict[str, dict[str, set[str]]] | None = None

    def reused(self, variant: Variant, result: EarlierResult) -> str:
        """Return what is to be said about a result that is reused; empty if nothing changed."""
        entry = result.entry
        if result.changes:
            return ""  # it is stale, which says more
        if entry.stage != variant.stage:
            return f"stage {entry.stage} was renamed to {variant.stage}"
        if entry.id not in self.earlier.last:
            return "result of an earlier configuration"
        return ""

    def run(self, variant: Variant, result: EarlierResult | None) -> str:
        """Return why a variant is run; empty if there were no results before."""
        reason = self._explain(variant, result) if self.earlier.entries else ""
        self._running[variant.id] = reason
        return reason

    def _explain(self, variant: Variant, result: EarlierResult | None) -> str:
        if result is not None:
            if result.changes:
                return result.changes
            if result.entry.status is Status.MASKED:
                return self._unmasked(variant)
            if result.entry.status is Status.FAILED:
                return "it failed before"
            if result.entry.status.done:
                return "its checkpoint is missing"
            return "it was not finished"
        if self.before is not None and self.before.seed != self.now.seed:
            return f"seed {self.before.seed} → {self.now.seed}"
        differences = [*self._new_values(variant), *self._changed_settings(variant)]
        if not differences:
            differences = list(self._of_ancestors(variant)) or [self._otherwise(variant)]
        return listed(differences, MOST)

    def _unmasked(self, variant: Variant) -> str:
        """Return why a variant is run that was left out before."""
        reason = self.earlier.entries[variant.id].reason
        kept = reason.removesuffix(" was not kept by reduce")
        return f"{kept} is kept by reduce now" if kept != reason else "it was left out before"

    def earlier_names(self, stage: str) -> set[str]:
        """Return the names under which a stage has results."""
        origin = self.expander.origin(stage)
        before = self.before.stages if self.before is not None else {}
        return {stage, origin, *(name for name in before if before[name].origin == origin)}

    def _new_values(self, variant: Variant) -> Iterator[str]:
        seen = self._seen_values()
        names = [name for name in self.earlier_names(variant.stage) if name in seen]
        if not names:
            yield "new stage"
            return
        inherited = [self.earlier.looked_up.get(parent) for parent in variant.parents.values()]
        for name, value in variant.choices.items():
            if any(parent is not None and name in parent.choices for parent in inherited):
                continue
            tail = name.rpartition(".")[2]
            if not any(_text(value) in seen[stage].get(tail, ()) for stage in names):
                yield f"new value {choices_text({name: value})}"

    def _seen_values(self) -> Mapping[str, Mapping[str, set[str]]]:
        """Return stage → the last part of the name of an option → the values that it had."""
        if self._seen is None:
            self._seen = {}
            for entry in self.earlier.entries.values():
                values = self._seen.setdefault(entry.stage, {})
                for name, value in entry.choices.items():
                    values.setdefault(name.rpartition(".")[2], set()).add(_text(value))
        return self._seen

    def _changed_settings(self, variant: Variant) -> Iterator[str]:
        if self.before is None:
            return
        names = self.earlier_names(variant.stage)
        before = next((s for name, s in self.before.stages.items() if name in names), None)
        if before is None:
            return
        old, new = before.settings, self.now.stages[variant.stage].settings
        for path in dict.fromkeys([*new, *old]):
            name = path or "component"
            if path not in old:
                yield f"new: {name} {new[path]}"
            elif path not in new:
                yield f"{name} was removed"
            elif old[path] != new[path] and not self._is_renamed(old[path], new[path]):
                yield f"{name} {old[path]} → {new[path]}"
        for name in sorted(variant.resources):
            location = self.before.resources.get(name)
            if location is not None and location != self.now.resources.get(name):
                yield f"resource {name!r} {location} → {self.now.resources.get(name)}"

    def _is_renamed(self, old: str, new: str) -> bool:
        """Whether two links differ only in the name of a stage that was renamed."""
        return any(
            new.startswith(f"!@ {stage}") and old == new.replace(stage, name, 1)
            for stage in self.expander.origins
            for name in self.earlier_names(stage)
        )

    def _of_ancestors(self, variant: Variant) -> Iterator[str]:
        for stage, parent in variant.parents.items():
            if reason := self._running.get(parent):
                yield reason if reason.startswith("ancestor ") else f"ancestor {stage}: {reason}"

    def _otherwise(self, variant: Variant) -> str:
        if self.before is None:
            return "its configuration has changed"
        return "new combination of values" if variant.choices else "no result is left"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
