"""Runs a stage of an experiment: which variants it has, which are run, and which are kept."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flambe.compile import registry
from flambe.compile.state.pickled import user_key
from flambe.experiment.executors.admission import Admission, StageQueue, filled
from flambe.experiment.executors.base import Executor, StageOptions
from flambe.experiment.executors.stage_task import Explored, StageTask
from flambe.experiment.graph import StageGraph, VariantGraph, compares
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


@dataclass
class StageWork:
    """A stage whose variants are known, and what is left to do in it.

    Attributes
    ----------
    state
        The stage.
    search
        Its search.
    queue
        Those of its variants that may start.
    pending
        The variants that are to be run, those included that wait for others.
    bases
        The variants that a searcher starts from.
    """

    state: StageState
    search: StageSearch
    queue: StageQueue
    pending: list[Variant] = field(default_factory=list)
    bases: list[Variant] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.state.name


class StageRunner:
    """Prepares, runs and concludes the stages of one run; several may run at the same time.

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
    stages, graph
        What the stages depend on, and which variants wait for others.
    admission
        The queues of the stages.
    variants
        Stage → all its variants.
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
        self.stages = StageGraph(spec)
        self.graph = VariantGraph()
        self.admission = Admission()
        self.variants: dict[str, list[Variant]] = {}

    def prepare(self, stage: StageState) -> StageWork:
        """Expand a stage, and record its variants: those that are done, and those to be run."""
        spec = self.spec.stage(stage.name)
        search = StageSearch.of(spec, self.spec.seed)
        self.resume.recognize(stage.name, self.variants)
        candidates = search.draw(self.expander, self.expander.expand(stage.name, self.variants))
        work = StageWork(stage, search, self.admission.queue(stage.name, limit=spec.max_parallel))
        if search.searcher:
            self._adopt_search(work, candidates)
        else:
            self._adopt(work, candidates)
            stage.total = len(candidates)
        for message in [
            *self._describe_repeated(stage.name),
            *self.resume.describe(stage.name, self.journal),
        ]:
            self.notify(message)
        return work

    def _describe_repeated(self, stage: str) -> Iterator[str]:
        if count := self.expander.repeated[stage]:
            variants = "1 variant is" if count == 1 else f"{count} variants are"
            yield (
                f"{stage}: {variants} written more than once, and run once; to repeat a variant, "
                "give it an argument of its own, such as   repeat: !g [1, 2]"
            )

    # -- what is to be run --------------------------------------------------------------------

    def _adopt(self, work: StageWork, candidates: Sequence[Variant]) -> None:
        """Record the variants of a stage that are known before it runs."""
        stage = work.state
        self.variants[stage.name] = []
        for candidate in candidates:
            if self.graph.is_excluded(candidate):
                self.variants[stage.name].append(candidate)
                self.resume.mask(self.journal, candidate)
                self.graph.exclude(candidate.id)
                continue
            variant, result = self.resume.match(candidate)
            self.variants[stage.name].append(variant)
            if self.resume.adopt(self.journal, variant, result):
                self.graph.finish(variant.id)
            else:
                work.pending.append(variant)

    def _adopt_search(self, work: StageWork, candidates: Sequence[Variant]) -> None:
        """Record what a search tried in an earlier run, and find out what it is to try.

        To be run are the variants that are unfinished, and the bases that the searcher starts from
        if it has more to try.
        """
        stage, search = work.state, work.search
        bases = [variant for variant in candidates if not self.graph.is_excluded(variant)]
        resumed = self.resume.adopt_search(self.journal, stage.name, bases, self.expander)
        self.variants[stage.name] = resumed.variants
        search.evaluated += resumed.points
        search.num_samples -= len(resumed.variants)
        remaining = max(0, search.num_samples)
        stage.total = len(resumed.variants) + remaining
        work.pending = resumed.unfinished
        work.bases = bases if remaining else []

    # -- running it ---------------------------------------------------------------------------

    def execute(
        self,
        work: StageWork,
        workers: Workers,
        check: Callable[[], None],
        on_end: Callable[[Variant, bool], None],
    ) -> None:
        """Run the variants that are in the queue of a stage, and those that come into it.

        Parameters
        ----------
        work
            The stage.
        workers
            What runs them.
        check
            Raises if the stage is to stop.
        on_end
            Called with each variant that has ended, and whether others may build upon it.
        """
        recorded, bases = work.pending, work.bases
        task = self._task(work.name, [*recorded, *bases])
        self.journal.stage(work.state, Status.RUNNING)
        spec, search = self.spec.stage(work.name), work.search
        done = sum(entry.status.done for entry in self.journal.of(work.name))
        limits = StageLimits(spec.stop, self.spec.variant_seconds, done)
        run = functools.partial(self._run_queue, work, task, workers, limits, check, on_end)
        if not compares(spec):
            run(work.queue)
            work.queue.end()
            return
        # None of its variants waits for others: they are run in groups, one after another.
        work.queue.drain()
        work.queue.end()
        together = bool(bases) and search.continues_points
        groups = [(bases, True)] if together else [(recorded, False), (bases, True)]
        if search.is_population:  # members of one base copy one another
            groups = [(members, False) for members in by_base(recorded)]
        for variants, searched in groups:
            if variants:
                urgency = self._waiting_for(work.name)
                queue = self.admission.queue(work.name, limit=spec.max_parallel, urgency=urgency)
                run(filled(queue, variants), searched, recorded if together else ())
                queue.end()

    def _run_queue(
        self,
        work: StageWork,
        task: StageTask,
        workers: Workers,
        limits: StageLimits,
        check: Callable[[], None],
        on_end: Callable[[Variant, bool], None],
        queue: StageQueue,
        searched: bool = False,
        continued: Sequence[Variant] = (),
    ) -> None:
        search = work.search
        suggested = {variant.id for variant in self.variants[work.name]}
        options = StageOptions(
            workers.devices,
            self.spec.max_failures,
            self.spec.reuse_actors,
            search.build_scheduler(),
            search.build_searcher(suggested, continued) if searched else None,
            self._earlier_trials(work.name) if search.scheduling else (),
            search.built_spaces() if search.is_population else {},
            limits,
        )
        listener = RunListener(
            self.journal,
            notify=self.notify,
            check=check,
            on_new=self.variants[work.name].append,
            on_done=on_end,
            searcher=search.searcher.tag if searched and search.searcher else "",
        )
        workers.executor.run_stage(task, queue, options, listener)

    def urgency(self, variant: Variant) -> int:
        """Return how many variants wait for one, those of later stages included."""
        return self.graph.weight(variant.id) + self._waiting_for(variant.stage)

    def _waiting_for(self, stage: str) -> int:
        totals = {state.name: state.total for state in self.journal.run.stages}
        return self.stages.waiting_totals(totals, self.variants)[stage]

    def _earlier_trials(self, stage: str) -> list[EarlierTrial]:
        lines = read_lines(self.storage.folder.variants)
        return earlier_trials(self.journal.of(stage), lines)

    def _task(self, stage: str, pending: Sequence[Variant]) -> StageTask:
        variants = {
            name: {variant.id: variant for variant in self.variants[name]}
            for name in self.stages.ancestors[stage]
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

    def conclude(self, work: StageWork) -> None:
        """Determine which variants of a stage are kept: all its variants have ended.

        Raises
        ------
        RunError
            If ``reduce`` cannot rank them.
        """
        stage = work.state
        entries = self.journal.of(stage.name)
        failed = any(entry.status is Status.FAILED for entry in entries)
        done = [entry for entry in entries if entry.status.done]
        kept = keep_best(stage, done) if stage.reduce is not None else done
        scheduler = self.spec.stage(stage.name).scheduler
        for message in missing_figures(stage, done, kept, scheduler):
            self.notify(message)
        kept_ids = {entry.id for entry in kept}
        for entry in entries:
            if stage.reduce is not None and entry.status.done:
                self.journal.change(entry.id, kept=entry.id in kept_ids)
            if entry.id in kept_ids:
                self.graph.finish(entry.id)
            else:
                self.graph.exclude(entry.id)
        status = Status.FINISHED
        if failed and not done:
            status = Status.FAILED
        elif entries and all(entry.status is Status.MASKED for entry in entries):
            status = Status.MASKED
            self.notify(f"{stage.name} is skipped: {entries[0].reason}")
        self.journal.stage(stage, status)
