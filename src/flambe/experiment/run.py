"""One run of an experiment: the stage graph, from the first variant to the last."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flambe import _disk
from flambe._hints import to_continue
from flambe._version import __version__
from flambe.compile import Schema
from flambe.errors import (
    HaltedError,
    Interrupted,
    RunError,
)
from flambe.experiment.counting import count_variants
from flambe.experiment.devices import resolve_devices
from flambe.experiment.executors.base import Executor
from flambe.experiment.executors.inline import InlineExecutor
from flambe.experiment.executors.tune import local_ray
from flambe.experiment.journal import Journal
from flambe.experiment.observer import LogObserver, Observer, guard
from flambe.experiment.pipeline_runner import PipelineRunner
from flambe.experiment.resume import ResumeState
from flambe.experiment.search.stage_limits import time_limit
from flambe.experiment.search.stage_search import StageSearch
from flambe.experiment.signals import Interruption, not_interrupted
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.stage_runner import StageRunner, Workers
from flambe.experiment.storage.folder_lock import FolderLock
from flambe.experiment.storage.run_storage import RunStorage
from flambe.experiment.variants.expansion import Expander, may_run, positions, stages_linked
from flambe.experiment.variants.failed_variants import failure_report
from flambe.experiment.variants.inputs import Inputs
from flambe.logging.console import home
from flambe.packaging.provenance import Recording, Source
from flambe.packaging.resources import fetch
from flambe.progress import RunState, StageState, Status, host_name


@dataclass(frozen=True)
class RunOptions:
    """The options of a run, as the command gives them.

    Attributes
    ----------
    force
        Whether results of the same name are moved aside.
    resume
        As :class:`Experiment` takes it, and instead of what the experiment says; None for that.
    stale
        ``"reuse"`` to use results whose code, data or ancestors have changed, or ``"rerun"``.
    debug
        Stop in a debugger before each step.
    verbose
        Used by the display of the command alone.
    observer
        Shows how the run goes; the log by default.
    executor
        Makes what runs the stages, given the folder of the run; Ray Tune by default.
    """

    force: bool = False
    resume: bool | str | Sequence[str] | None = None
    stale: str = "rerun"
    debug: bool = False
    verbose: bool = False
    observer: Observer | None = None
    executor: Callable[[Path], Executor] | None = None


@dataclass(frozen=True)
class RunContext:
    """What a run takes from where it was started.

    Attributes
    ----------
    write_config
        Writes the configuration to a file.
    identify_user
        Returns the name of the user who runs it.
    secrets
        The path of the file of secrets; empty for the one in flambe's own folder.
    source
        What is recorded of how the run was made.
    """

    write_config: Callable[[Path], None]
    identify_user: Callable[[], str]
    secrets: str = ""
    source: Source = field(default_factory=Source)


class Run:
    """Runs the stages of an experiment.

    Parameters
    ----------
    spec
        What to run.
    options
        How.
    context
        Where it was started.
    """

    def __init__(self, spec: ExperimentSpec, options: RunOptions, context: RunContext) -> None:
        self.spec = spec
        self.force = options.force
        self.resume = options.resume or spec.resume
        self.use_stale = options.stale == "reuse"
        self.debug = options.debug or spec.debug
        self.context = context
        self.observer = guard(options.observer or LogObserver())
        self.storage = RunStorage(
            spec, self.observer.note, local=self.debug, secrets=context.secrets
        )
        self.folder = self.storage.folder
        self.journal = Journal(self.folder, RunState(spec.name), self.observer)
        self._make_executor = options.executor or self._default_executor
        self._workers: Workers | None = None
        self._recording: Recording | None = None
        self.interruption = Interruption()

    def _default_executor(self, root: Path) -> Executor:
        if self.debug:
            from flambe.experiment.executors.debugger import Debugger

            return InlineExecutor(root, debugger=Debugger())
        if self.spec.env is None:
            local_ray.import_for_loopback()
        from flambe.experiment.executors.tune.driver import TuneExecutor

        if self.spec.env is None:
            return TuneExecutor(root, halt=self.interruption.halt)
        from flambe.experiment.executors.tune.ray_nodes import RayNodeMonitor

        nodes = RayNodeMonitor(self.spec.env, self.observer.note, self.interruption.halt)
        return TuneExecutor(root, nodes, self.interruption.halt)

    def execute(self) -> None:
        """Run; see :meth:`Experiment.run`."""
        for stage in self.spec.stages:
            StageSearch.of(stage, self.spec.seed).check_engines()
        with FolderLock(self.folder.root, self.observer.note):
            self._execute_locked()

    def _execute_locked(self) -> None:
        named = bool(self.resume) and not isinstance(self.resume, bool)
        self.storage.open(force=self.force, resume=bool(self.resume), needs_results=named)
        resume = ResumeState(
            self.folder,
            self.storage.checkpoints,
            list(self.spec.pipeline),
            self.resume,
            use_stale=self.use_stale,
        )
        self._describe()
        source = replace(self.context.source, resumed=bool(self.resume))
        self._recording = Recording(self.folder.invocations, source)
        self._recording.begin()
        self.journal.begin()
        status, error = Status.FAILED, ""
        with self.interruption:
            try:
                self.storage.start_mirror()
                with time_limit(self.spec.run_seconds, self.interruption.halt):
                    error = self._run_stages(resume)
                status = Status.FINISHED
            except HaltedError as problem:
                status, error = Status.INTERRUPTED, problem.message
                raise
            except KeyboardInterrupt:
                status, error = Status.INTERRUPTED, self.interruption.reason
                if error:
                    raise HaltedError(error) from None
                raise Interrupted(
                    f"interrupted; finished variants are in {self.folder.root}\n  {to_continue()}"
                ) from None
            except Exception as problem:
                cause = self.journal.disk_error or problem
                if isinstance(cause, OSError):  # of a disk, or of a bucket
                    full = _disk.is_full(cause)
                    status = Status.INTERRUPTED if full else Status.FAILED
                    error = self._storage_error(cause)
                    raise HaltedError(error) from problem
                error = str(problem) or type(problem).__name__
                raise
            except BaseException as problem:
                error = str(problem) or type(problem).__name__
                raise
            finally:
                with not_interrupted():
                    self._end(status, error)
        if error:  # it finished, without the variants that failed
            raise RunError(error)

    def _end(self, status: Status, error: str) -> None:
        if self._recording is not None:
            self._recording.end()
        self.journal.end(status, error)
        if self._workers is not None:
            self._workers.executor.close()
        if error and status is Status.INTERRUPTED:
            self.storage.checkpoints.remove_parts(self.journal.variants.values())
        self.storage.close()

    def _run_stages(self, resume: ResumeState) -> str:
        """Run all stages; return a report on the variants that failed, or nothing."""
        resources = self._fetch_resources()
        inputs = Inputs.of(self.spec, resources, self.observer.note)
        expander = Expander(
            self.spec.pipeline, self.spec.seed, self.spec.resources, inputs, seeds=self.spec.seeds
        )
        resume.attach(self.journal, self.spec, expander)
        runner = StageRunner(
            self.spec,
            self.storage,
            self.journal,
            resume,
            expander,
            resources,
            start_workers=self._start_workers,
            check=self.interruption.check,
            notify=self.observer.note,
            secrets=self._trial_secrets(),
        )
        PipelineRunner(runner).run()
        if message := resume.describe_unrecorded():
            self.observer.note(message)
        return self._failures()

    def _storage_error(self, problem: OSError) -> str:
        """Return why a disk, or a bucket, refused something."""
        if problem.errno not in (*_disk.FULL, errno.EROFS):
            return str(problem)
        return _disk.reason(problem, self.folder.root, host_name())

    # -- before the first stage ---------------------------------------------------------------

    def _describe(self) -> None:
        """Write the configuration, and describe the run in its state."""
        spec, run = self.spec, self.journal.run
        run.version, run.seed, run.storage = __version__, spec.seed, self.storage.storage.url
        run.seeds = list(spec.seeds)
        run.command = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
        run.host, run.pid = socket.gethostname(), os.getpid()
        user = self.context.identify_user()
        run.hosts = {host_name(): {"user": user, "cpus": os.cpu_count()}}
        run.stages += describe_stages(spec)
        self.context.write_config(self.folder.config)

    def _fetch_resources(self) -> dict[str, str]:
        """Fetch the resources that are not local; return name → path."""
        if self.spec.env is not None:  # they are on every host, below its own home
            return dict(self.spec.env.resources)
        return {
            name: fetch(name, str(location), self.spec.folder, self.folder.resources)
            for name, location in self.spec.resources.items()
        }

    def _trial_secrets(self) -> str:
        """Return the file of secrets for processes of variants, from flambe's own folder."""
        path = Path(self.context.secrets or home())
        if self.context.secrets and self.spec.env is not None:
            # The file of the factories is beside the folder of the orchestrator's.
            path = path.parent.parent / path.name
        return os.path.relpath(path, home())

    def _start_workers(self) -> Workers:
        """Start the executor, once, and return it with what a variant occupies."""
        if self._workers is None:
            notify = self.observer.note
            notify("stopping before each step" if self.debug else "starting Ray")
            local = self.spec.env is None
            if local and not self.debug and os.environ.get("RAY_ADDRESS"):
                notify("RAY_ADDRESS is not used: a run on this machine has a Ray of its own")
            executor = self._make_executor(self.folder.root)
            self._workers = Workers(executor, {})  # closed, whatever comes now
            executor.start()
            if isinstance(executor, InlineExecutor) and self._recording is not None:
                # Its threads would be taken for those of a variant, in the same process.
                self._recording.end()
            self.interruption.check()
            devices = resolve_devices(self.spec.devices, executor.capacity(), local=local)
            self._workers = Workers(executor, devices)
        return self._workers

    # -- after the last stage -----------------------------------------------------------------

    def _failures(self) -> str:
        """Return a report on the variants that failed, or nothing."""
        entries = [e for s in self.journal.run.stages if s.runs for e in self.journal.of(s.name)]
        failed = [entry for entry in entries if entry.status is Status.FAILED]
        if not failed:
            return ""
        run = [entry for entry in entries if entry.status is not Status.MASKED]
        summary = f"{len(failed)} of {len(run)} variants failed; the run finished without them"
        return failure_report(self.folder, failed, summary)


def describe_stages(spec: ExperimentSpec) -> list[StageState]:
    """Return the states of the stages before a run."""
    order = positions(spec.pipeline)
    links = {name: stages_linked(config, order, name) for name, config in spec.pipeline.items()}
    used = {name for linked in links.values() for name in linked}
    counts = count_variants(spec)
    states = []
    for stage in spec.stages:
        states.append(
            StageState(
                stage.name,
                stage.config.tag if isinstance(stage.config, Schema) else "",
                links[stage.name],
                # What has nothing to run is built where it is used; unless it is not used.
                may_run(stage.config) or stage.name not in used,
                reduce=stage.reduce,
                total=counts[stage.name].running,
            )
        )
    return states
