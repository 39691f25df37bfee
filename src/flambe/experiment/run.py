"""One run of an experiment: the stage graph, from the first variant to the last."""

from __future__ import annotations

import contextlib
import errno
import getpass
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambe import _disk
from flambe._version import __version__
from flambe.compile import Schema, registry, yaml
from flambe.compile.build import Origin, folder_of
from flambe.compile.state.pickled import user_key
from flambe.errors import (
    HaltedError,
    Interrupted,
    RunError,
    StateError,
)
from flambe.experiment.devices import occupied
from flambe.experiment.executors.base import Executor, StageOptions
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.executors.stage_task import StageTask
from flambe.experiment.executors.tune import local_ray
from flambe.experiment.failed_variants import failure_report
from flambe.experiment.journal import Journal, LogObserver, Observer
from flambe.experiment.listener import RunListener
from flambe.experiment.observer import guarded
from flambe.experiment.resume import Reuse
from flambe.experiment.search.stage_search import StageSearch
from flambe.experiment.signals import Interruption, not_interrupted
from flambe.experiment.storage.folder_lock import FolderLock
from flambe.experiment.storage.run_storage import Place
from flambe.experiment.variants.expansion import Expander, Variant, positions, stages_linked
from flambe.experiment.variants.inputs import Inputs
from flambe.experiment.variants.reduction import figure_notes, keep_best
from flambe.logging.console import home
from flambe.packaging.resources import fetch
from flambe.progress import (
    RunState,
    StageState,
    Status,
    host_name,
)

if TYPE_CHECKING:
    from flambe.experiment.experiment import Experiment

_log = logging.getLogger(__name__)


class Run:
    """Runs the stages of an experiment in order.

    Parameters
    ----------
    experiment
        What to run.
    force, resume, stale, debug, observer, executor
        See :meth:`Experiment.run`.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        force: bool = False,
        resume: bool | str | Sequence[str] | None = None,
        stale: str = "rerun",
        debug: bool = False,
        observer: Observer | None = None,
        executor: Callable[[Path], Executor] | None = None,
        **_: Any,
    ) -> None:
        self.experiment = experiment
        self.force = force
        self.resume = resume or experiment.resume
        self.stale = stale
        self.debug = debug or experiment.debug
        self.observer = guarded(observer or LogObserver())
        self.place = Place(experiment, self.observer.note, local=self.debug)
        self.folder = self.place.folder
        self.journal = Journal(self.folder, RunState(experiment.name), self.observer)
        # All variants of each stage, and the ids of those that are built upon.
        self.variants: dict[str, list[Variant]] = {}
        self.flowing: set[str] = set()
        self._make_executor = executor or self._default_executor
        self._executor: Executor | None = None
        self.interruption = Interruption()

    def _default_executor(self, root: Path) -> Executor:
        if self.debug:
            from flambe.experiment.executors.debugger import Debugger

            return InlineExecutor(root, debugger=Debugger())
        if self.experiment.env is None:
            local_ray.import_for_loopback()
        from flambe.experiment.executors.tune.driver import TuneExecutor

        if self.experiment.env is None:
            return TuneExecutor(root, halt=self.interruption.halt)
        from flambe.experiment.executors.tune.ray_nodes import Nodes

        nodes = Nodes(self.experiment.env, self.observer.note, self.interruption.halt)
        return TuneExecutor(root, nodes, self.interruption.halt)

    def execute(self) -> None:
        """Run; see :meth:`Experiment.run`."""
        self.experiment.parse()
        for name in self.experiment.pipeline:
            self._search(name).check_engines()
        with FolderLock(self.folder.root, self.observer.note):
            self._execute_alone()

    def _execute_alone(self) -> None:
        named = bool(self.resume) and not isinstance(self.resume, bool)
        self.place.open(force=self.force, resume=bool(self.resume), wanted=named)
        self.reuse = Reuse(
            self.folder,
            self.place.checkpoints,
            self.experiment.pipeline,
            self.resume,
            stale=self.stale == "reuse",
        )
        self._describe()
        self.journal.begin()
        status, error = Status.FAILED, ""
        with self.interruption:
            try:
                self.place.mirrored()
                resources = self._resources()
                self.expander = Expander(
                    self.experiment.pipeline,
                    self.experiment.seed,
                    self.experiment.resources,
                    Inputs.of(self.experiment, resources, self.observer.note),
                )
                for stage in self.journal.run.stages:
                    self._run_stage(stage, resources)
                if note := self.reuse.unknown_note():
                    self.observer.note(note)
                status, error = Status.FINISHED, self._failures()
            except HaltedError as problem:
                status, error = Status.INTERRUPTED, problem.message
                raise
            except KeyboardInterrupt:
                status, error = Status.INTERRUPTED, self.interruption.reason
                if error:
                    raise HaltedError(error) from None
                raise Interrupted(
                    f"interrupted; what is done is in {self.folder.root}\n"
                    "  to continue, run the same command with --resume"
                ) from None
            except Exception as problem:
                refused = self.journal.disk_error or problem
                if isinstance(refused, OSError):  # of a disk, or of a bucket
                    full = _disk.is_full(refused)
                    status = Status.INTERRUPTED if full else Status.FAILED
                    error = self._refused(refused)
                    raise HaltedError(error) from problem
                error = str(problem) or type(problem).__name__
                raise
            except BaseException as problem:
                error = str(problem) or type(problem).__name__
                raise
            finally:
                with not_interrupted():
                    self.journal.end(status, error)
                    if self._executor is not None:
                        self._executor.close()
                    if error and status is Status.INTERRUPTED:
                        self.place.remove_parts(self.journal.variants.values())
                    self.place.close()
        if error:  # it finished, without the variants that failed
            raise RunError(error)

    def _refused(self, problem: OSError) -> str:
        """Return what a disk, or a bucket, refused."""
        if problem.errno not in (*_disk.FULL, errno.EROFS):
            return str(problem)
        return _disk.reason(problem, self.folder.root, host_name())

    # -- before the first stage ---------------------------------------------------------------

    def _describe(self) -> None:
        experiment, run = self.experiment, self.journal.run
        run.version, run.seed, run.storage = __version__, experiment.seed, self.place.storage.url
        run.command = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
        run.host, run.pid = socket.gethostname(), os.getpid()
        run.hosts = {host_name(): {"user": _user(experiment), "cpus": os.cpu_count()}}
        order = positions(experiment.pipeline)
        links = {
            name: stages_linked(value, order, name) for name, value in experiment.pipeline.items()
        }
        used = {name for linked in links.values() for name in linked}
        known: dict[str, list[Variant]] = {}
        expander = Expander(experiment.pipeline, experiment.seed)
        for name, value in experiment.pipeline.items():
            known[name] = expander.expand(name, known)
            run.stages.append(
                StageState(
                    name,
                    value.tag if isinstance(value, Schema) else "",
                    links[name],
                    # What has nothing to run is built where it is used; unless it is not used.
                    any(variant.runs for variant in known[name]) or name not in used,
                    reduce=experiment.reduce.get(name),
                    total=len(known[name]),
                )
            )
            known[name] = known[name][: experiment.reduce.get(name)]
        origin: Origin | None = vars(experiment).get("_flambe_origin")
        place = origin.schema.place if origin else None
        self._base = folder_of(experiment)
        if place and os.path.isfile(place.file):
            shutil.copyfile(place.file, self.folder.config)
        else:
            try:
                text = yaml.dump(experiment)
            except StateError as error:  # made in Python, with values that have no YAML form
                text = "".join(f"# {line}\n" for line in str(error).splitlines())
            self.folder.config.write_text(text, encoding="utf-8")

    def _resources(self) -> dict[str, Any]:
        """Fetch what is not local; return name → path."""
        if self.experiment.env is not None:  # they are on every host, below its own home
            return dict(self.experiment.env.resources)
        return {
            name: fetch(name, str(location), self._base, self.folder.resources)
            for name, location in self.experiment.resources.items()
        }

    def _secrets(self) -> str:
        """Return the file of secrets of those who run variants, from flambe's own folder."""
        origin = getattr(self.experiment.config, "origin", "")
        path = Path(origin or home())
        if origin and self.experiment.env is not None:
            # What the factories get lies beside what only the orchestrator gets.
            path = path.parent.parent / path.name
        return os.path.relpath(path, home())

    # -- one stage ----------------------------------------------------------------------------

    def _run_stage(self, stage: StageState, resources: Mapping[str, Any]) -> None:
        search = self._search(stage.name)
        candidates = search.draw(self.expander, self.expander.expand(stage.name, self.variants))
        allowed = [v for v in candidates if self.flowing.issuperset(v.ancestry.values())]
        if search.searcher:
            self.variants[stage.name] = []
            todo = self.reuse.adopt_searched(self.journal, search, stage.name, allowed, self)
            stage.total = len(self.variants[stage.name]) + max(0, search.num_samples)
        else:
            todo = self._adopted(stage, candidates)
            stage.total = len(candidates)
        for note in [*self._repeated(stage.name), *self.reuse.notes(stage.name, self.journal)]:
            self.observer.note(note)
        if todo:
            self._execute(stage, todo, search, resources)
        self._conclude(stage)

    def _search(self, stage: str) -> StageSearch:
        experiment = self.experiment
        return StageSearch.of_stage(
            stage,
            experiment.pipeline[stage],
            experiment.search.get(stage),
            experiment.schedulers.get(stage),
            experiment.seed,
        )

    def _repeated(self, stage: str) -> Iterator[str]:
        if count := self.expander.repeated[stage]:
            written = "1 variant is" if count == 1 else f"{count} variants are"
            yield (
                f"{stage}: {written} written more than once, and run once; to repeat it, give it "
                "an argument of its own, such as   repeat: !g [1, 2]"
            )

    def _adopted(self, stage: StageState, candidates: Sequence[Variant]) -> list[Variant]:
        """Note the variants of a stage that are known before it runs; return what is to be run."""
        todo = []
        self.variants[stage.name] = []
        for candidate in candidates:
            if not self.flowing.issuperset(candidate.ancestry.values()):
                self.variants[stage.name].append(candidate)
                self.reuse.mask(self.journal, candidate)
                continue
            variant, found = self.reuse.settled(candidate)
            self.variants[stage.name].append(variant)
            if self.reuse.adopt(self.journal, variant, found):
                continue
            if variant.runs or stage.runs:
                todo.append(variant)
            else:
                self.journal.change(variant.id, status=Status.FINISHED)
        return todo

    def _execute(
        self,
        stage: StageState,
        todo: list[Variant],
        search: StageSearch,
        resources: Mapping[str, Any],
    ) -> None:
        executor = self._started_executor()
        known = {
            name: {variant.id: variant for variant in variants}
            for name, variants in self.variants.items()
        }
        known[stage.name] = {variant.id: variant for variant in todo}
        task = StageTask(
            stage.name,
            self.place.storage,
            known,
            list(self.experiment.pipeline),
            self.expander,
            dict(resources),
            dict(registry.extensions().declared),
            self.experiment.seed,
            self.reuse.checkpoints(self.journal, todo),
            self._secrets(),
            user_key(),
        )
        self.journal.stage(stage, Status.RUNNING)
        static = [v for v in todo if v.id in self.journal.variants]
        for variants, searched in ((static, False), ([v for v in todo if v not in static], True)):
            if variants:
                suggested = {variant.id for variant in self.variants[stage.name]}
                options = StageOptions(
                    self.devices,
                    self.experiment.max_failures,
                    self.experiment.reuse_actors,
                    search.build_scheduler(),
                    search.build_searcher(suggested) if searched else None,
                )
                searcher = search.searcher.tag if searched and search.searcher else ""
                executor.run_stage(task, variants, options, RunListener(self, searcher))

    def _started_executor(self) -> Executor:
        if self._executor is None:
            self.observer.note("stopping before each step" if self.debug else "starting Ray")
            if self.experiment.env is None and not self.debug and os.environ.get("RAY_ADDRESS"):
                self.observer.note(
                    "RAY_ADDRESS is not used: a run on this machine has a Ray of its own"
                )
            self._executor = self._make_executor(self.folder.root)
            self._executor.start()
            self.interruption.check()
            self.devices = occupied(
                self.experiment.devices,
                self._executor.capacity(),
                local=self.experiment.env is None,
            )
        return self._executor

    def _conclude(self, stage: StageState) -> None:
        """Find what flows on from a stage, and whether the run may go on.

        Raises
        ------
        RunError
            If it may not.
        """
        entries = self.journal.of(stage.name)
        failed = [entry for entry in entries if entry.status is Status.FAILED]
        done = [entry for entry in entries if entry.status.done]
        if failed and self.experiment.stop_on_failure:
            self.journal.stage(stage, Status.FAILED)
            summary = f"{len(failed)} of {len(entries)} variants of stage {stage.name!r} failed"
            raise RunError(failure_report(self.folder, failed, summary))
        kept = keep_best(stage, done) if stage.reduce is not None else done
        for note in figure_notes(stage, done, kept, self.experiment.schedulers.get(stage.name)):
            self.observer.note(note)
        for entry in entries:
            if stage.reduce is not None and entry.status.done:
                self.journal.change(entry.id, kept=entry in kept)
        self.flowing |= {entry.id for entry in kept}
        status = Status.FINISHED
        if failed and not done:
            status = Status.FAILED
        elif entries and all(entry.status is Status.MASKED for entry in entries):
            status = Status.MASKED
            self.observer.note(f"{stage.name} is skipped: {entries[0].reason}")
        self.journal.stage(stage, status)

    def _failures(self) -> str:
        """Return what failed in a run that is at its end, or nothing."""
        entries = [e for s in self.journal.run.stages if s.runs for e in self.journal.of(s.name)]
        failed = [entry for entry in entries if entry.status is Status.FAILED]
        if not failed:
            return ""
        run = [entry for entry in entries if entry.status is not Status.MASKED]
        summary = f"{len(failed)} of {len(run)} variants failed; the run is at its end without them"
        return failure_report(self.folder, failed, summary)


def _user(experiment: Experiment) -> str:
    if callable(experiment.user_provider):
        return str(experiment.user_provider())
    with contextlib.suppress(Exception):
        return getpass.getuser()
    return ""
