"""Runs the stages of an experiment: which variants they have, which are run, and which are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flambe.compile import registry
from flambe.compile.state.pickled import user_key
from flambe.errors import RunError
from flambe.experiment.executors.base import Executor, StageOptions
from flambe.experiment.executors.stage_task import Explored, StageTask
from flambe.experiment.failed_variants import failure_report
from flambe.experiment.journal import Journal
from flambe.experiment.listener import RunListener
from flambe.experiment.resume import ResumeState
from flambe.experiment.search.history import EarlierTrial, earlier_trials
from flambe.experiment.search.stage_limits import StageLimits
from flambe.experiment.search.stage_search import StageSearch, by_base
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.storage.run_storage import RunStorage
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.reduction import keep_best, missing_figures
from flambe.progress import StageState, Status, read_lines


@dataclass(frozen=True)
class Workers:
    """What runs variants.

    Attributes
    ----------
    executor
        The executor, started.
    devices
        What each variant occupies of a host.
    """

    executor: Executor
    devices: dict[str, float]


class StageRunner:
    """Runs the stages of one run, in the order in which it is given them.

    Parameters
    ----------
    spec
        The experiment.
    storage
        Where the files of the run are.
    journal
        Records what happens.
    resume
        The results of earlier runs.
    expander
        Makes the variants.
    resources
        Name → path.
    start_workers
        Called before the first variant is run.
    check
        Raises if the run was interrupted.
    notify
        Called with each message for the user.
    secrets
        The file of secrets for processes of variants.

    Attributes
    ----------
    variants
        Stage → all its variants.
    kept_ids
        The ids of the variants that later stages build upon.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        storage: RunStorage,
        journal: Journal,
        resume: ResumeState,
        expander: Expander,
        resources: Mapping[str, str],
        *,
        start_workers: Callable[[], Workers],
        check: Callable[[], None],
        notify: Callable[[str], None],
        secrets: str = "",
    ) -> None:
        self.spec = spec
        self.storage = storage
        self.journal = journal
        self.resume = resume
        self.expander = expander
        self.resources: dict[str, object] = dict(resources)
        self.start_workers = start_workers
        self.check = check
        self.notify = notify
        self.secrets = secrets
        self.variants: dict[str, list[Variant]] = {}
        self.kept_ids: set[str] = set()

    def run(self, stage: StageState) -> None:
        """Run a stage.

        Raises
        ------
        RunError
            If the run may not continue after it.
        """
        search = StageSearch.of(self.spec.stage(stage.name), self.spec.seed)
        self.resume.recognize(stage.name, self.variants)
        candidates = search.draw(self.expander, self.expander.expand(stage.name, self.variants))
        if search.searcher:
            pending = self._adopt_search(stage, candidates, search)
        else:
            pending = self._adopt(stage, candidates)
            stage.total = len(candidates)
        for message in [
            *self._describe_repeated(stage.name),
            *self.resume.describe(stage.name, self.journal),
        ]:
            self.notify(message)
        if pending:
            self._execute(stage, pending, search)
        self._conclude(stage)

    def _describe_repeated(self, stage: str) -> Iterator[str]:
        if count := self.expander.repeated[stage]:
            variants = "1 variant is" if count == 1 else f"{count} variants are"
            yield (
                f"{stage}: {variants} written more than once, and run once; to repeat a variant, "
                "give it an argument of its own, such as   repeat: !g [1, 2]"
            )

    # -- what is to be run --------------------------------------------------------------------

    def _has_ancestors(self, variant: Variant) -> bool:
        """Whether all variants that it depends on have results, and were kept."""
        return self.kept_ids.issuperset(variant.ancestry.values())

    def _adopt(self, stage: StageState, candidates: Sequence[Variant]) -> list[Variant]:
        """Record the variants of a stage that are known before it runs; return those to be run."""
        pending = []
        self.variants[stage.name] = []
        for candidate in candidates:
            if not self._has_ancestors(candidate):
                self.variants[stage.name].append(candidate)
                self.resume.mask(self.journal, candidate)
                continue
            variant, result = self.resume.match(candidate)
            self.variants[stage.name].append(variant)
            if self.resume.adopt(self.journal, variant, result):
                continue
            if variant.runs or stage.runs:
                pending.append(variant)
            else:
                self.journal.change(variant.id, status=Status.FINISHED)
        return pending

    def _adopt_search(
        self, stage: StageState, candidates: Sequence[Variant], search: StageSearch
    ) -> list[Variant]:
        """Record what a search tried in an earlier run; return what is to be run.

        That is the variants that are unfinished, and the bases that the searcher starts from if it
        has more to try.
        """
        bases = [variant for variant in candidates if self._has_ancestors(variant)]
        resumed = self.resume.adopt_search(self.journal, stage.name, bases, self.expander)
        self.variants[stage.name] = resumed.variants
        search.evaluated += resumed.points
        search.num_samples -= len(resumed.variants)
        remaining = max(0, search.num_samples)
        stage.total = len(resumed.variants) + remaining
        return [*resumed.unfinished, *(bases if remaining else [])]

    # -- running it ---------------------------------------------------------------------------

    def _execute(self, stage: StageState, pending: list[Variant], search: StageSearch) -> None:
        workers = self.start_workers()
        task = self._task(stage.name, pending)
        self.journal.stage(stage, Status.RUNNING)
        recorded = [variant for variant in pending if variant.id in self.journal.variants]
        bases = [variant for variant in pending if variant not in recorded]
        done = sum(entry.status.done for entry in self.journal.of(stage.name))
        stop = self.spec.stage(stage.name).stop
        limits = StageLimits(stop, self.spec.variant_seconds, done)
        searched = bool(bases)
        together = searched and search.continues_points
        groups = [(bases, True)] if together else [(recorded, False), (bases, True)]
        if search.is_population:  # members of one base copy one another
            groups = [(members, False) for members in by_base(recorded)]
        for variants, searched in groups:
            if not variants:
                continue
            suggested = {variant.id for variant in self.variants[stage.name]}
            options = StageOptions(
                workers.devices,
                self.spec.max_failures,
                self.spec.reuse_actors,
                search.build_scheduler(),
                search.build_searcher(suggested, recorded if together else ())
                if searched
                else None,
                self._earlier_trials(stage.name) if search.scheduling else (),
                search.built_spaces() if search.is_population else {},
                limits,
            )
            listener = RunListener(
                self.journal,
                notify=self.notify,
                check=self.check,
                on_new=self.variants[stage.name].append,
                searcher=search.searcher.tag if searched and search.searcher else "",
            )
            workers.executor.run_stage(task, variants, options, listener)

    def _earlier_trials(self, stage: str) -> list[EarlierTrial]:
        lines = read_lines(self.storage.folder.variants)
        return earlier_trials(self.journal.of(stage), lines)

    def _task(self, stage: str, pending: Sequence[Variant]) -> StageTask:
        variants = {
            name: {variant.id: variant for variant in variants}
            for name, variants in self.variants.items()
        }
        variants[stage] = {variant.id: variant for variant in pending}
        return StageTask(
            stage,
            self.storage.storage,
            variants,
            list(self.spec.pipeline),
            self.expander,
            self.resources,
            dict(registry.extensions().declared),
            self.resume.restore_points(self.journal, pending, self.spec.stage(stage).keep),
            self.secrets,
            user_key(),
            self.spec.stage(stage).keep,
            self._explored(pending),
        )

    def _explored(self, pending: Sequence[Variant]) -> dict[str, Explored]:
        """Return what members of a population had become, by id."""
        entries = [self.journal.variants.get(variant.id) for variant in pending]
        return {
            entry.id: Explored(entry.history[-1]["values"], len(entry.history))
            for entry in entries
            if entry is not None and entry.history
        }

    # -- after it -----------------------------------------------------------------------------

    def _conclude(self, stage: StageState) -> None:
        """Determine which variants of a stage are kept, and whether the run may continue.

        Raises
        ------
        RunError
            If it may not.
        """
        entries = self.journal.of(stage.name)
        failed = [entry for entry in entries if entry.status is Status.FAILED]
        done = [entry for entry in entries if entry.status.done]
        if failed and self.spec.stop_on_failure:
            self.journal.stage(stage, Status.FAILED)
            summary = f"{len(failed)} of {len(entries)} variants of stage {stage.name!r} failed"
            raise RunError(failure_report(self.storage.folder, failed, summary))
        kept = keep_best(stage, done) if stage.reduce is not None else done
        scheduler = self.spec.stage(stage.name).scheduler
        for message in missing_figures(stage, done, kept, scheduler):
            self.notify(message)
        for entry in entries:
            if stage.reduce is not None and entry.status.done:
                self.journal.change(entry.id, kept=entry in kept)
        self.kept_ids |= {entry.id for entry in kept}
        status = Status.FINISHED
        if failed and not done:
            status = Status.FAILED
        elif entries and all(entry.status is Status.MASKED for entry in entries):
            status = Status.MASKED
            self.notify(f"{stage.name} is skipped: {entries[0].reason}")
        self.journal.stage(stage, status)
