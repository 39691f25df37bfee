"""What an earlier run left that a resumed one builds upon."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.experiment.search.stage_search import EvaluatedPoint, StageSearch
from flambe.experiment.storage.checkpoints import FINAL, RESUMED, Checkpoints
from flambe.experiment.variants.expansion import Variant
from flambe.experiment.variants.lineage import Earlier, Found
from flambe.progress import (
    RunFolder,
    Status,
    VariantState,
    better,
    end_last_line,
    is_number,
    read_lines,
)

if TYPE_CHECKING:
    from flambe.experiment.journal import Journal
    from flambe.experiment.run import Run


class Reuse:
    """The results of earlier runs in the same folder, found by the identities of variants.

    Parameters
    ----------
    folder
        The folder of the run.
    checkpoints
        Its checkpoints.
    pipeline
        The stages.
    resume
        As :class:`Experiment` takes it.
    stale
        Whether results are used whose code, data or ancestors have changed since.

    Attributes
    ----------
    rerun
        Stage → why variants with an earlier result are run again → how many.
    unknown
        How many results are used of which nobody noted what they were made from.

    Raises
    ------
    ConfigError
        If it names a stage that there is not.
    """

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: Checkpoints,
        pipeline: Mapping[str, Any],
        resume: bool | str | Sequence[str],
        *,
        stale: bool = False,
    ) -> None:
        self.folder = folder
        self.kept = checkpoints
        self.stale = stale
        self.rerun: dict[str, Counter[str]] = {}
        self.unknown = 0
        if resume:
            end_last_line(folder.variants)
        #: What belonged to the last run, by id.
        self.last: dict[str, VariantState] = folder.read_variants() if resume else {}
        self.earlier = Earlier.read(read_lines(folder.variants) if resume else ())
        named: Sequence[str] = ()
        if not isinstance(resume, bool):
            named = [resume] if isinstance(resume, str) else resume
        names = list(pipeline)
        if unknown := [
            Problem(f"resume: there is no stage {name!r}", hint=did_you_mean(name, names))
            for name in named
            if name not in names
        ]:
            raise ConfigError(unknown)
        last = max((names.index(name) for name in named), default=-1) if named else -1
        #: Stages whose saved results are used as they are.
        self.saved = set(names[: last + 1])
        if named:
            self._set_aside(names[last + 1 :])

    def _set_aside(self, stages: Sequence[str]) -> None:
        """Move what later stages left out of the way; they are run anew."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for stage in stages:
            place = self.folder.root / stage
            if place.exists():
                aside = self.folder.root / "earlier" / stamp
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(place, aside / stage)
            if self.kept.root != str(self.folder.root):
                self.kept.move(
                    f"{self.kept.root}/{stage}", f"{self.kept.root}/earlier/{stamp}/{stage}"
                )
        entries = {k: v for k, v in self.earlier.entries.items() if v.stage not in stages}
        self.earlier = Earlier(entries)
        self.last = {k: v for k, v in self.last.items() if k in entries}

    # -- which result is whose ----------------------------------------------------------------

    def settled(self, variant: Variant) -> tuple[Variant, Found | None]:
        """Return a variant as its earlier result knows it, and that result, if it is to be used.

        A result keeps the identity and the folder that it was recorded with: what builds on a stale
        one is none of those that build on a fresh one.
        """
        found = self.earlier.find(variant)
        if found is None:
            return variant, None
        entry = found.entry
        if found.changes and not self.stale:
            if self._complete(entry, runs=variant.runs) or self._begun(entry):
                self.rerun.setdefault(variant.stage, Counter())[found.changes] += 1
                return variant, found
            return variant, None
        self.unknown += found.unknown
        if found.changes or found.unknown:
            variant = dataclasses.replace(variant, id=entry.id, code=entry.code, data=entry.data)
        return dataclasses.replace(variant, name=entry.name), found

    def _begun(self, entry: VariantState) -> bool:
        return self.kept.latest(self.kept.folder(entry.stage, entry.name)) is not None

    def _complete(self, entry: VariantState, *, runs: bool) -> bool:
        """Whether a result is there as a whole; its figures are those of its last checkpoint."""
        if not runs:
            return entry.status.done
        place = self.kept.folder(entry.stage, entry.name)
        latest = self.kept.latest(place)
        manifest = self.kept.manifest(latest) if latest is not None else None
        # The run may have ended between the last checkpoint and the note that it was the last.
        if manifest is None or not (entry.status.done or manifest["done"]):
            return False
        self.kept.settle(place, FINAL)
        entry.step, entry.metric = manifest["step"], manifest["metric"]
        entry.best = _best(manifest, entry)
        return True

    def adopt(self, journal: Journal, variant: Variant, found: Found | None) -> bool:
        """Note a variant: as done if its earlier result is whole, else as waiting.

        Parameters
        ----------
        journal
            Where.
        variant, found
            As :meth:`settled` returned them.

        Returns
        -------
        bool
            Whether it is done.

        Raises
        ------
        ConfigError
            If its stage was named to be used as saved, and it was not finished.
        """
        usable = found is not None and not (found.changes and not self.stale)
        changes = found.changes if found is not None else ""
        if found is not None and usable and self._complete(found.entry, runs=variant.runs):
            entry = found.entry
            journal.add(
                variant,
                status=Status.REUSED,
                metric=entry.metric,
                best=entry.best,
                step=entry.step,
                started=entry.started,
                ended=entry.ended,
                host=entry.host,
                stale=changes or _above(journal, variant),
            )
            return True
        if variant.stage in self.saved and variant.runs:
            raise ConfigError(self._not_saved(variant, changes if not usable else ""))
        if usable:
            journal.add(variant, stale=changes or _above(journal, variant))
        else:
            journal.add(variant, stale=_above(journal, variant), reason=changes)
        return False

    def mask(self, journal: Journal, variant: Variant) -> None:
        """Note a variant that is not built upon; what it left keeps its name."""
        entry = self.earlier.entries.get(variant.id)
        name = entry.name if entry is not None else variant.name
        journal.add(dataclasses.replace(variant, name=name), status=Status.MASKED)

    def _not_saved(self, variant: Variant, changes: str) -> Problem:
        name = f"resume: {variant.stage}/{variant.name}"
        if changes:
            return Problem(
                f"{name} has only a stale result: {changes}",
                hint="--stale reuse uses it; --resume alone runs it again",
            )
        return Problem(
            f"{name} has no saved result",
            hint="resume from an earlier stage, or with --resume alone, which runs what is missing",
        )

    def adopt_searched(
        self, journal: Journal, search: StageSearch, stage: str, bases: list[Variant], run: Run
    ) -> list[Variant]:
        """Take over what a search tried before; return what is to be run.

        Unfinished ones are finished first; the searcher is told of the others, and tries the rest.
        """
        again: list[Variant] = []
        for entry in self.earlier.entries.values():
            if entry.stage != stage or not entry.values or entry.status is Status.FAILED:
                continue
            for suggested in self._suggested(entry, bases, run):
                variant, found = self.settled(suggested)
                if found is None or found.entry is not entry or variant.id in journal.variants:
                    continue
                run.variants[stage].append(variant)
                if not self.adopt(journal, variant, found):
                    again.append(variant)
                else:
                    figure = entry.metric if is_number(entry.metric) else None
                    point = EvaluatedPoint(suggested.base, entry.values, figure)
                    search.evaluated.append(point)
        search.num_samples -= len(run.variants[stage])
        return again + (bases if search.num_samples > 0 else [])

    def _suggested(
        self, entry: VariantState, bases: Sequence[Variant], run: Run
    ) -> Iterator[Variant]:
        """Yield the variant of an earlier result, as a base of today suggests it."""
        for base in bases:
            variant = run.expander.suggest(base, entry.values, entry.repetition)
            if variant.id == entry.id or variant.config_id == (entry.config_id or entry.id):
                yield variant
                return

    def checkpoints(self, journal: Journal, variants: Sequence[Variant]) -> dict[str, str]:
        """Return the checkpoints that unfinished variants go on from, by id; note how far they are.

        What was best may have been before the checkpoint.
        """
        found = {}
        for variant in variants:
            place = self.kept.folder(variant.stage, variant.name)
            if variant.id in self.earlier.entries and (kept := self.kept.settle(place, RESUMED)):
                found[variant.id] = kept
                manifest = self.kept.manifest(kept)
                if manifest is not None and variant.id in journal.variants:
                    known = {name: manifest[name] for name in ("step", "metric")}
                    best = _best(manifest, self.earlier.entries[variant.id])
                    journal.change(variant.id, **known, best=best)
        return found

    # -- what people are told -----------------------------------------------------------------

    def notes(self, stage: str, journal: Journal) -> Iterator[str]:
        """Yield what is to be said of the results that a stage does not use."""
        rerun = self.rerun.get(stage, Counter())
        for changes, count in rerun.items():
            yield (
                f"{stage}: {_variants(count)} run again: {changes}; "
                "the earlier results are kept (--stale reuse would use them)"
            )
        replaced = {entry.config_id for entry in journal.of(stage)}
        gone = [
            entry
            for entry in self.last.values()
            if entry.stage == stage and entry.id not in journal.variants
        ]
        for entry in gone:
            journal.forget(entry.id)
        if done := sum(e.status.done and e.config_id not in replaced for e in gone):
            yield (
                f"{stage}: the configuration has changed; {done} earlier results don't belong "
                f"to it, and are left in {self.folder.root / stage}"
            )
        stale = Counter(entry.stale for entry in journal.of(stage) if entry.stale)
        for changes, count in stale.items():
            yield f"{stage}: {_variants(count)} stale, and used all the same: {changes}"

    def unknown_note(self) -> str:
        """Return what is to be said of results of which nobody noted what they were made from."""
        if not self.unknown:
            return ""
        return (
            f"{self.unknown} results are of a version of flambe that noted neither code nor "
            "data: whether these have changed since is not known (--force runs all again)"
        )


def _variants(count: int) -> str:
    return f"{count} variant is" if count == 1 else f"{count} variants are"


def _above(journal: Journal, variant: Variant) -> str:
    """Return the stages with stale results that a variant is built on, for people."""
    stale = [stage for stage, parent in variant.parents.items() if journal.variants[parent].stale]
    return f"built on stale results of {', '.join(stale)}" if stale else ""


def _best(manifest: Mapping[str, Any], earlier: VariantState) -> float | None:
    """Return what was best up to a checkpoint; where that is NaN, the journal knows."""
    best: float | None = manifest["best"]
    return best if best is None or is_number(best) else better(earlier.best, manifest["metric"])
