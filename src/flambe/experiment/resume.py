"""What an earlier run left that a resumed one builds upon."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flambe._files import replacing
from flambe._hints import option
from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.experiment.journal import Journal
from flambe.experiment.retention import Retention
from flambe.experiment.search.stage_search import EvaluatedPoint
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.storage.checkpoints import FINAL, Checkpoints
from flambe.experiment.storage.restore_point import best_until, restore_point
from flambe.experiment.storage.saved_results import newest_checkpoint
from flambe.experiment.variants import resume_messages
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.lineage import EarlierResult, EarlierResults
from flambe.experiment.variants.reasons import Reasons
from flambe.experiment.variants.recognition import (
    adopted,
    read_record,
    recall,
    recognize,
    suggested,
)
from flambe.experiment.variants.record import LineageRecord
from flambe.progress import (
    RunFolder,
    Status,
    VariantState,
    end_last_line,
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
        self.earlier = EarlierResults.read(read_lines(folder.variants) if resume else ())
        self.before = read_record(folder) if resume else None
        self._expander: Expander | None = None
        self._reasons: Reasons | None = None
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
        last = {k: v for k, v in self.earlier.last.items() if k in entries}
        self.earlier = EarlierResults(entries, last)

    def attach(self, journal: Journal, spec: ExperimentSpec, expander: Expander) -> None:
        """Let the variants of this run be compared with the earlier results.

        What belongs to stages that are no longer in the file is no part of the run from here on.
        """
        self._expander = expander
        recall(expander, self.earlier, self.before)
        now = LineageRecord.of(spec, expander)
        self._reasons = Reasons(self.earlier, self.before, expander, now)
        self._spec = spec
        self._write_record()
        journal.resume(self.earlier.last)
        for entry in self.earlier.last.values():
            if entry.stage not in spec.pipeline:
                journal.forget(entry.id, f"there is no stage {entry.stage} any more")

    def recognize(self, stage: str, variants: Mapping[str, Sequence[Variant]]) -> None:
        """Find out whether a stage is one of the last run under another name."""
        assert self._expander is not None
        if recognize(self._expander, self.earlier, self.before, stage, variants):
            self._write_record()

    def _write_record(self) -> None:
        assert self._expander is not None
        text = LineageRecord.of(self._spec, self._expander).dump()
        with replacing(self.folder.lineage) as part:
            part.write_text(text, encoding="utf-8")

    # -- which result is whose ----------------------------------------------------------------

    def vanished(self) -> set[str]:
        """Return the stages with earlier results that are not in the file."""
        assert self._expander is not None
        stages = {entry.stage for entry in self.earlier.entries.values()}
        return stages - set(self._expander.pipeline)

    def match(self, variant: Variant) -> tuple[Variant, EarlierResult | None]:
        """Return a variant as its earlier result knows it, and that result, if it is to be used.

        A result keeps the identity and the folder that it was recorded with: what builds on a stale
        one is none of those that build on a fresh one.
        """
        assert self._expander is not None
        result = self.earlier.find(variant, self._expander)
        if result is None:
            return variant, None
        entry = result.entry
        if result.changes and not self.use_stale:
            if self._has_result(entry, runs=variant.runs):
                self.rerun.setdefault(variant.stage, Counter())[result.changes] += 1
                return variant, result
            return variant, None
        self.unrecorded += result.unrecorded
        if entry.id != variant.id:
            variant = adopted(variant, result)
            self.earlier.looked_up[variant.id] = variant
        if entry.stage != variant.stage:
            self._bring_here(variant, entry)
        return replace(variant, name=entry.name), result

    def _bring_here(self, variant: Variant, entry: VariantState) -> None:
        """Move the files of a result to the stage that has it now.

        What is in place was moved by a run that was killed before it wrote that down.
        """
        source = self.folder.variant(entry.stage, entry.name)
        target = self.folder.variant(variant.stage, entry.name)
        if source.is_dir() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        if self.checkpoints.root != str(self.folder.root):
            old = self.checkpoints.folder(entry.stage, entry.name)
            new = self.checkpoints.folder(variant.stage, entry.name)
            if self.checkpoints.latest(new) is None:
                self.checkpoints.move(old, new)

    def _has_result(self, entry: VariantState, *, runs: bool) -> bool:
        """Whether anything is left of a result."""
        folder = self.checkpoints.folder(entry.stage, entry.name)
        if newest_checkpoint(self.checkpoints, folder) is not None:
            return True
        return entry.status.done and not runs

    def _is_complete(self, entry: VariantState, *, runs: bool, stage: str) -> bool:
        """Whether a result exists as a whole; its figures are those of its last checkpoint."""
        if not runs:
            return entry.status.done
        folder = self.checkpoints.folder(stage, entry.name)
        newest = newest_checkpoint(self.checkpoints, folder)
        if newest is None or not newest.completes(entry):
            return False
        if not newest.is_settled:
            self.checkpoints.settle(folder, FINAL, spare_settled=True)
        manifest = newest.manifest
        entry.step, entry.metric = manifest.step, manifest.metric
        entry.best = best_until(manifest, entry)
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
        assert self._reasons is not None
        usable = result is not None and not (result.changes and not self.use_stale)
        changes = result.changes if result is not None else ""
        if (
            result is not None
            and usable
            and self._is_complete(result.entry, runs=variant.runs, stage=variant.stage)
        ):
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
                stored_bytes=entry.stored_bytes,
                seconds=entry.seconds,
                history=entry.history,
                stale=changes or _stale_ancestors(journal, variant),
                reason=self._reasons.reused(variant, result),
            )
            return True
        if variant.stage in self.saved and variant.runs:
            raise ConfigError(self._not_saved(variant, changes if not usable else ""))
        reason = self._reasons.run(variant, result)
        if usable and changes:
            journal.add(variant, stale=changes)
        else:
            journal.add(variant, stale=_stale_ancestors(journal, variant), reason=reason)
        return False

    def mask(self, journal: Journal, variant: Variant) -> None:
        """Record a variant that is not built upon; its earlier results keep their name."""
        entry = self.earlier.entries.get(variant.id)
        name = entry.name if entry is not None else variant.name
        if entry is not None and entry.stage != variant.stage:
            self._bring_here(variant, entry)
        journal.add(replace(variant, name=name), status=Status.MASKED)

    def _not_saved(self, variant: Variant, changes: str) -> Problem:
        name = f"resume: {variant.stage}/{variant.name}"
        if changes:
            return Problem(
                f"{name} has only a stale result: {changes}",
                hint=f"{option('stale', 'reuse')} uses it; {option('resume')} alone runs it again",
            )
        return Problem(
            f"{name} has no saved result",
            hint=f"resume from an earlier stage, or with {option('resume')} alone, which runs "
            "what is missing",
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
        names = {stage, *self.vanished()}
        for entry in self.earlier.entries.values():
            if entry.stage not in names or not entry.values or entry.status is Status.FAILED:
                continue
            if (candidate := suggested(entry, bases, expander)) is None:
                continue
            variant, result = self.match(candidate)
            if result is None or result.entry is not entry or variant.id in journal.variants:
                continue
            resumed.variants.append(variant)
            if not self.adopt(journal, variant, result):
                resumed.unfinished.append(variant)
            else:
                resumed.points.append(EvaluatedPoint.of(entry, candidate.base, candidate.values))
        return resumed

    def restore_points(
        self, journal: Journal, variants: Sequence[Variant], retention: Retention
    ) -> dict[str, str]:
        """Return the checkpoints that unfinished variants continue from, by id.

        Their progress is recorded. What was best may have been before the checkpoint. One that is
        damaged is reported, and the one before is taken.
        """
        checkpoints = {}
        for variant in variants:
            if variant.id not in self.earlier.entries:
                continue
            point = restore_point(
                self.checkpoints, variant.stage, variant.name, retention, journal.observer.note
            )
            if point is None:
                continue
            checkpoints[variant.id], manifest = point
            if variant.id in journal.variants:
                before = self.earlier.entries[variant.id]
                step, metric, best = manifest.step, manifest.metric, best_until(manifest, before)
                # What it copied after its last checkpoint is gone with that.
                history = before.history[: manifest.copies]
                journal.change(variant.id, step=step, metric=metric, best=best, history=history)
        return checkpoints

    def describe(self, stage: str, journal: Journal) -> Iterator[str]:
        """Yield messages on what a stage runs and reuses; what is no part of it is forgotten."""
        entries = {entry.config_id: entry for entry in journal.of(stage)}
        gone = [
            entry
            for entry in self.earlier.last.values()
            if entry.stage == stage and entry.id not in journal.variants
        ]
        for entry in gone:
            successor = entries.get(entry.config_id)
            journal.forget(entry.id, successor.reason if successor is not None else "")
        replaced = sum(e.status.done and e.config_id not in entries for e in gone)
        rerun, folder = self.rerun.get(stage, Counter()), self.folder.root / stage
        yield from resume_messages.describe(stage, journal.of(stage), rerun, replaced, folder)

    def describe_unrecorded(self) -> str:
        """Return a message on the results whose code and data were not recorded, or nothing."""
        return resume_messages.describe_unrecorded(self.unrecorded)


def _stale_ancestors(journal: Journal, variant: Variant) -> str:
    """Return the stages with stale results that a variant is built on, for people."""
    stale = [stage for stage, parent in variant.parents.items() if journal.variants[parent].stale]
    return f"built on stale results of {', '.join(stale)}" if stale else ""
