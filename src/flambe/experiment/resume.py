"""What an earlier run left that a resumed one builds upon."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.experiment.journal import Journal
from flambe.experiment.search.stage_search import EvaluatedPoint
from flambe.experiment.storage.checkpoints import FINAL, RESUMED, Checkpoints, Manifest
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.lineage import EarlierResult, EarlierResults
from flambe.progress import (
    RunFolder,
    Status,
    VariantState,
    better,
    end_last_line,
    is_number,
    read_lines,
)


@dataclass
class ResumedSearch:
    """What an earlier run of a search left.

    Attributes
    ----------
    variants
        The variants that it suggested, as this run has them.
    unfinished
        Those of them that are to be finished.
    points
        The points whose variants are done, for the searcher.
    """

    variants: list[Variant] = field(default_factory=list)
    unfinished: list[Variant] = field(default_factory=list)
    points: list[EvaluatedPoint] = field(default_factory=list)


class ResumeState:
    """The results of earlier runs in the same folder, found by the identities of variants.

    Parameters
    ----------
    folder
        The folder of the run.
    checkpoints
        Its checkpoints.
    stages
        The names of the stages, in order.
    resume
        As :class:`Experiment` takes it.
    use_stale
        Whether results are used whose code, data or ancestors have changed since.

    Attributes
    ----------
    rerun
        Stage → why variants with an earlier result are run again → how many.
    unrecorded
        How many results are used whose code and data were not recorded.

    Raises
    ------
    ConfigError
        If it names a stage that does not exist.
    """

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: Checkpoints,
        stages: Sequence[str],
        resume: bool | str | Sequence[str],
        *,
        use_stale: bool = False,
    ) -> None:
        self.folder = folder
        self.checkpoints = checkpoints
        self.use_stale = use_stale
        self.rerun: dict[str, Counter[str]] = {}
        self.unrecorded = 0
        if resume:
            end_last_line(folder.variants)
        #: What belonged to the last run, by id.
        self.last: dict[str, VariantState] = folder.read_variants() if resume else {}
        self.earlier = EarlierResults.read(read_lines(folder.variants) if resume else ())
        named: Sequence[str] = ()
        if not isinstance(resume, bool):
            named = [resume] if isinstance(resume, str) else resume
        if problems := [
            Problem(f"resume: there is no stage {name!r}", hint=did_you_mean(name, stages))
            for name in named
            if name not in stages
        ]:
            raise ConfigError(problems)
        last = max((stages.index(name) for name in named), default=-1) if named else -1
        #: Stages whose saved results are used as they are.
        self.saved = set(stages[: last + 1])
        if named:
            self._set_aside(stages[last + 1 :])

    def _set_aside(self, stages: Sequence[str]) -> None:
        """Move the results of later stages out of the way; these stages are run again."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for stage in stages:
            stage_folder = self.folder.root / stage
            if stage_folder.exists():
                aside = self.folder.root / "earlier" / stamp
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(stage_folder, aside / stage)
            root = self.checkpoints.root
            if root != str(self.folder.root):
                self.checkpoints.move(f"{root}/{stage}", f"{root}/earlier/{stamp}/{stage}")
        entries = {k: v for k, v in self.earlier.entries.items() if v.stage not in stages}
        self.earlier = EarlierResults(entries)
        self.last = {k: v for k, v in self.last.items() if k in entries}

    # -- which result is whose ----------------------------------------------------------------

    def match(self, variant: Variant) -> tuple[Variant, EarlierResult | None]:
        """Return a variant as its earlier result knows it, and that result, if it is to be used.

        A result keeps the identity and the folder that it was recorded with: what builds on a stale
        one is none of those that build on a fresh one.
        """
        result = self.earlier.find(variant)
        if result is None:
            return variant, None
        entry = result.entry
        if result.changes and not self.use_stale:
            if self._is_complete(entry, runs=variant.runs) or self._has_begun(entry):
                self.rerun.setdefault(variant.stage, Counter())[result.changes] += 1
                return variant, result
            return variant, None
        self.unrecorded += result.unrecorded
        if result.changes or result.unrecorded:
            variant = dataclasses.replace(variant, id=entry.id, code=entry.code, data=entry.data)
        return dataclasses.replace(variant, name=entry.name), result

    def _has_begun(self, entry: VariantState) -> bool:
        folder = self.checkpoints.folder(entry.stage, entry.name)
        return self.checkpoints.latest(folder) is not None

    def _is_complete(self, entry: VariantState, *, runs: bool) -> bool:
        """Whether a result exists as a whole; its figures are those of its last checkpoint."""
        if not runs:
            return entry.status.done
        folder = self.checkpoints.folder(entry.stage, entry.name)
        latest = self.checkpoints.latest(folder)
        manifest = self.checkpoints.manifest(latest) if latest is not None else None
        # The run may have ended between the last checkpoint and the line that it was the last.
        if manifest is None or not (entry.status.done or manifest.done):
            return False
        self.checkpoints.settle(folder, FINAL)
        entry.step, entry.metric = manifest.step, manifest.metric
        entry.best = _best(manifest, entry)
        return True

    def adopt(self, journal: Journal, variant: Variant, result: EarlierResult | None) -> bool:
        """Record a variant: as done if its earlier result is whole, else as waiting.

        Parameters
        ----------
        journal
            Where.
        variant, result
            As :meth:`match` returned them.

        Returns
        -------
        bool
            Whether it is done.

        Raises
        ------
        ConfigError
            If its stage was named to be used as saved, and it was not finished.
        """
        usable = result is not None and not (result.changes and not self.use_stale)
        changes = result.changes if result is not None else ""
        if result is not None and usable and self._is_complete(result.entry, runs=variant.runs):
            entry = result.entry
            journal.add(
                variant,
                status=Status.REUSED,
                metric=entry.metric,
                best=entry.best,
                step=entry.step,
                started=entry.started,
                ended=entry.ended,
                host=entry.host,
                stale=changes or _stale_ancestors(journal, variant),
            )
            return True
        if variant.stage in self.saved and variant.runs:
            raise ConfigError(self._not_saved(variant, changes if not usable else ""))
        if usable:
            journal.add(variant, stale=changes or _stale_ancestors(journal, variant))
        else:
            journal.add(variant, stale=_stale_ancestors(journal, variant), reason=changes)
        return False

    def mask(self, journal: Journal, variant: Variant) -> None:
        """Record a variant that is not built upon; its earlier results keep their name."""
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

    # -- searches -----------------------------------------------------------------------------

    def adopt_search(
        self, journal: Journal, stage: str, bases: Sequence[Variant], expander: Expander
    ) -> ResumedSearch:
        """Adopt what a search tried in an earlier run; the unfinished variants come first.

        Parameters
        ----------
        journal
            Records the variants.
        stage
            The stage that is searched.
        bases
            The variants that the search starts from.
        expander
            Makes the variants that were suggested.
        """
        resumed = ResumedSearch()
        for entry in self.earlier.entries.values():
            if entry.stage != stage or not entry.values or entry.status is Status.FAILED:
                continue
            for suggested in _suggested(entry, bases, expander):
                variant, result = self.match(suggested)
                if result is None or result.entry is not entry or variant.id in journal.variants:
                    continue
                resumed.variants.append(variant)
                if not self.adopt(journal, variant, result):
                    resumed.unfinished.append(variant)
                else:
                    figure = entry.metric if is_number(entry.metric) else None
                    resumed.points.append(EvaluatedPoint(suggested.base, entry.values, figure))
        return resumed

    def restore_points(self, journal: Journal, variants: Sequence[Variant]) -> dict[str, str]:
        """Return the checkpoints that unfinished variants continue from, by id.

        Their progress is recorded. What was best may have been before the checkpoint.
        """
        checkpoints = {}
        for variant in variants:
            folder = self.checkpoints.folder(variant.stage, variant.name)
            if variant.id not in self.earlier.entries:
                continue
            # Not under a name that Tune gives to its own checkpoints, or it would be overwritten by
            # the first: test_a_retry_after_resuming_goes_on_from_the_resumed_checkpoint.
            checkpoint = self.checkpoints.settle(folder, RESUMED)
            if checkpoint is None:
                continue
            checkpoints[variant.id] = checkpoint
            manifest = self.checkpoints.manifest(checkpoint)
            if manifest is not None and variant.id in journal.variants:
                best = _best(manifest, self.earlier.entries[variant.id])
                journal.change(variant.id, step=manifest.step, metric=manifest.metric, best=best)
        return checkpoints

    # -- messages -----------------------------------------------------------------------------

    def describe(self, stage: str, journal: Journal) -> Iterator[str]:
        """Yield messages on the earlier results that a stage does not use, or that are stale."""
        rerun = self.rerun.get(stage, Counter())
        for changes, count in rerun.items():
            yield (
                f"{stage}: {_variants_are(count)} run again: {changes}; "
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
            yield f"{stage}: {_variants_are(count)} stale, and used all the same: {changes}"

    def describe_unrecorded(self) -> str:
        """Return a message on the results whose code and data were not recorded, or nothing."""
        if not self.unrecorded:
            return ""
        return (
            f"{self.unrecorded} results are from a version of flambe that recorded neither code "
            "nor data: whether these have changed since is not known (--force runs all again)"
        )


def _suggested(
    entry: VariantState, bases: Sequence[Variant], expander: Expander
) -> Iterator[Variant]:
    """Yield the variant of an earlier result, as a base of today suggests it."""
    for base in bases:
        variant = expander.suggest(base, entry.values, entry.repetition)
        if variant.id == entry.id or variant.config_id == (entry.config_id or entry.id):
            yield variant
            return


def _variants_are(count: int) -> str:
    return f"{count} variant is" if count == 1 else f"{count} variants are"


def _stale_ancestors(journal: Journal, variant: Variant) -> str:
    """Return the stages with stale results that a variant is built on, for people."""
    stale = [stage for stage, parent in variant.parents.items() if journal.variants[parent].stale]
    return f"built on stale results of {', '.join(stale)}" if stale else ""


def _best(manifest: Manifest, earlier: VariantState) -> float | None:
    """Return what was best up to a checkpoint; where that is NaN, the journal knows."""
    best = manifest.best
    return best if best is None or is_number(best) else better(earlier.best, manifest.metric)
